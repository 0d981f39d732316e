//! Parameters that the host gives on the kernel command line.

use std::net::Ipv4Addr;

#[derive(Debug, Default, Clone, PartialEq)]
pub struct KernelCommandLine {
    /// The root device, `/dev/vda`.
    pub root: String,
    pub root_type: String,
    /// Wait for `wake` before services start.
    pub hold: bool,
    pub role: String,
    pub hostname: Option<String>,
    pub network: Option<Network>,
    /// `reboot=k`: the hypervisor ends the VM when the guest reboots.
    pub reboot_by_keyboard: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Option<Ipv4Addr>,
    pub dns: Option<Ipv4Addr>,
}

impl KernelCommandLine {
    pub fn parse(text: &str) -> Self {
        let mut parsed = Self {
            role: "worker".into(),
            ..Self::default()
        };
        for parameter in text.split_whitespace() {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match key {
                "root" => parsed.root = value.into(),
                "rootfstype" => parsed.root_type = value.into(),
                "reboot" => parsed.reboot_by_keyboard = value == "k",
                "mvm.hold" => parsed.hold = value == "1",
                "mvm.role" => parsed.role = value.into(),
                "mvm.hostname" => parsed.hostname = Some(value.into()),
                "mvm.net" => parsed.network = Network::parse(value),
                _ => {}
            }
        }
        parsed
    }
}

impl Network {
    /// `10.0.2.15/24,10.0.2.2,10.0.2.3`: address, gateway, name server; the last two may be missing.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(',');
        let (address, prefix) = parse_address(fields.next()?)?;
        Some(Self {
            address,
            prefix,
            gateway: fields.next().and_then(|field| field.parse().ok()),
            dns: fields.next().and_then(|field| field.parse().ok()),
        })
    }
}

/// `10.0.2.15/24`.
pub fn parse_address(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let prefix: u8 = prefix.parse().ok()?;
    (prefix <= 32).then_some((address.parse().ok()?, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_host_gives_and_ignores_the_rest() {
        let parsed = KernelCommandLine::parse(
            "console=ttyS0 quiet root=/dev/vda rootfstype=erofs ro mvm.hold=1 mvm.role=gateway mvm.net=10.0.2.15/24,10.0.2.2,10.0.2.3",
        );
        assert_eq!(parsed.root, "/dev/vda");
        assert_eq!(parsed.root_type, "erofs");
        assert!(parsed.hold);
        assert_eq!(parsed.role, "gateway");
        let network = parsed.network.unwrap();
        assert_eq!(
            (network.address, network.prefix),
            (Ipv4Addr::new(10, 0, 2, 15), 24)
        );
        assert_eq!(network.gateway, Some(Ipv4Addr::new(10, 0, 2, 2)));
    }

    #[test]
    fn a_senseless_network_is_none() {
        for text in ["", "10.0.2.15", "10.0.2.15/33", "nonsense/8"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
