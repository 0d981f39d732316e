//! The image's users and groups, from its own files: a static program has no name service to ask.

use std::fs;
use std::io;

#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub groups: Vec<u32>,
}

#[derive(Debug, Default, Clone)]
pub struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    pub fn load() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            passwd: read("/etc/passwd"),
            group: read("/etc/group"),
        }
    }

    /// A user by name or number.
    pub fn user(&self, name: &str) -> io::Result<Account> {
        self.passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.len() >= 6 && (fields[0] == name || fields[2] == name))
            .and_then(|fields| {
                let gid = fields[3].parse().ok()?;
                Some(Account {
                    name: fields[0].into(),
                    uid: fields[2].parse().ok()?,
                    gid,
                    home: fields[5].into(),
                    groups: self.groups_of(fields[0], gid),
                })
            })
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("the image has no user '{name}'"),
                )
            })
    }

    /// A group's number, by its name or number.
    pub fn group(&self, name: &str) -> io::Result<u32> {
        self.group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.len() >= 3 && (fields[0] == name || fields[2] == name))
            .and_then(|fields| fields[2].parse().ok())
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("the image has no group '{name}'"),
                )
            })
    }

    fn groups_of(&self, user: &str, own: u32) -> Vec<u32> {
        let mut groups = vec![own];
        for line in self.group.lines() {
            let fields: Vec<_> = line.split(':').collect();
            let is_member = fields.len() >= 4 && fields[3].split(',').any(|member| member == user);
            if let (true, Some(Ok(gid))) = (is_member, fields.get(2).map(|field| field.parse())) {
                if gid != own {
                    groups.push(gid);
                }
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nbroken\n"
                .into(),
            group: "root:x:0:\napp:x:1000:\nservices:x:900:app,web\nempty:x:901:\n".into(),
        }
    }

    #[test]
    fn a_user_has_its_groups_by_name_and_by_number() {
        let app = accounts().user("app").unwrap();
        assert_eq!(
            (app.uid, app.gid, app.home.as_str()),
            (1000, 1000, "/home/app")
        );
        assert_eq!(app.groups, [1000, 900]);
        assert_eq!(accounts().user("1000").unwrap(), app);
    }

    #[test]
    fn an_unknown_user_or_group_is_named() {
        assert!(accounts()
            .user("nobody")
            .unwrap_err()
            .to_string()
            .contains("nobody"));
        assert!(accounts()
            .group("none")
            .unwrap_err()
            .to_string()
            .contains("none"));
        assert_eq!(accounts().group("services").unwrap(), 900);
    }
}
