//! Query strings.

use std::collections::HashMap;

pub struct Query(HashMap<String, String>);

impl Query {
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(&value.replace('+', " ")))
        });
        Self(pairs.collect())
    }

    pub fn of(key: &str, value: &str) -> Self {
        Self(HashMap::from([(key.into(), value.into())]))
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    pub fn flag(&self, key: &str) -> bool {
        self.text(key) == Some("1")
    }
}

/// `%41` → `A`. What is no such sequence stays as it is.
pub fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte =
            code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        let query = Query::parse("path=%2Fsrv%2Fa+b&follow=1&tail=20&odd=%zz%");
        assert_eq!(query.text("path"), Some("/srv/a b"));
        assert!(query.flag("follow"));
        assert_eq!(query.number("tail"), Some(20));
        assert_eq!(query.text("odd"), Some("%zz%"));
    }
}
