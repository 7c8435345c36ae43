//! The driver domain's configuration, from its command line (`extra=` in its xl configuration).
//!
//! The command line is a list of `key=value` words, separated by spaces. `docs/operating.md` describes every
//! key. Those of the runtime, which obeys them by itself, are only checked here.

use alloc::{borrow::ToOwned, collections::BTreeMap, string::String, vec::Vec};
use core::{fmt, time::Duration};

use protocols::text::{decimal, words};

mod client;
mod disk;
mod network;

pub use client::Client;
pub use disk::DiskConfig;
pub use network::{Address, Segment};

use network::MAX_SEGMENTS;

/// The longest name of an uplink or alias, in bytes.
pub const MAX_NAME: usize = 32;

/// The whole configuration. What a key does not say has the value of [`Config::default`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `patience`: how long requests wait for an uplink's back end before they fail. Without it, for as long
    /// as it takes.
    pub patience: Option<Duration>,
    /// `disk.<name>`: what is known of a disk beyond its uplink's name.
    pub disks: BTreeMap<String, DiskConfig>,
    /// `segment.<name>`, in the order given: the first is that of clients which name none.
    pub segments: Vec<Segment>,
}

/// One mistake: which key, what it says, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What would have been right.
    pub expected: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}: expected {}", self.key, self.value, self.expected)
    }
}

impl Config {
    /// Reads a command line, and finds every mistake.
    pub fn parse(command_line: &str) -> (Self, Vec<ConfigError>) {
        let mut config = Self::default();
        let mut errors = Vec::new();
        let mut check = |key: &str, value: &str, result: Result<(), &'static str>| {
            if let Err(expected) = result {
                errors.push(ConfigError {
                    key: key.to_owned(),
                    value: value.to_owned(),
                    expected,
                });
            }
        };
        // Segments first: other keys are about them, and they name each other.
        let segments = || {
            words(command_line).filter_map(|(key, value)| Some((key, key.strip_prefix("segment.")?, value)))
        };
        for (key, name, value) in segments() {
            check(key, value, config.add_segment(name, value));
        }
        for (key, name, value) in segments() {
            let found = config.segments.iter().find(|segment| segment.name == name);
            let contradiction = found.and_then(|segment| segment.contradiction(&config.segments));
            check(key, value, contradiction.map_or(Ok(()), Err));
        }
        for (key, value) in words(command_line).filter(|(key, _)| !key.starts_with("segment.")) {
            check(key, value, config.set(key, value));
        }
        (config, errors)
    }

    fn add_segment(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        if !is_name(name) {
            return Err("a name of up to 32 letters, digits, '-' and '_' after \"segment.\"");
        }
        if self.segments.iter().any(|segment| segment.name == name) || self.segments.len() == MAX_SEGMENTS {
            return Err("each segment once, at most 16");
        }
        self.segments.push(Segment::parse(name, value)?);
        Ok(())
    }

    /// The number of a segment.
    fn segment(&self, name: &str) -> Result<usize, &'static str> {
        self.segments
            .iter()
            .position(|segment| segment.name == name)
            .ok_or("the name of a segment after the dot")
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        if key == "loglevel" {
            let level = value.parse::<log::LevelFilter>();
            return level
                .map(drop)
                .map_err(|_| "one of off, error, warn, info, debug, trace");
        }
        if key == "evtchn" {
            return if value == "2l" { Ok(()) } else { Err("2l") };
        }
        if key == "patience" {
            let seconds = decimal(value)
                .filter(|seconds| *seconds > 0)
                .ok_or("a number of seconds, at least 1")?;
            self.patience = Some(Duration::from_secs(seconds.into()));
            return Ok(());
        }
        if let Some(name) = key.strip_prefix("disk.") {
            if !is_name(name) {
                return Err("a name of up to 32 letters, digits, '-' and '_' after \"disk.\"");
            }
            let disk = DiskConfig::parse(value)?;
            if self.disks.insert(name.to_owned(), disk).is_some() {
                return Err("each disk to be named once");
            }
            return Ok(());
        }
        let (key, name) = key.split_once('.').unwrap_or((key, ""));
        if !["forward", "rule", "lease"].contains(&key) {
            return Err(
                "a known key: loglevel, evtchn, patience, disk.<name>, segment.<name>, forward.<segment>, rule.<segment>, lease.<segment>",
            );
        }
        let index = self.segment(name)?;
        match key {
            "forward" => Segment::add_forward(&mut self.segments, index, value),
            "rule" => self.segments[index].add_rule(value),
            _ => self.segments[index].add_lease(value),
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::network::router::{Endpoint, Forward, Protocol};
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn a_full_line() {
        let (config, errors) = Config::parse(
            "loglevel=debug evtchn=2l patience=30 disk.data=xvdb,queues=4 disk.iso=xvdc,ro,shared",
        );
        assert_eq!(errors, []);
        assert_eq!(config.patience, Some(Duration::from_secs(30)));
        assert_eq!(
            config.disk("iso"),
            Some(DiskConfig {
                vdev: "xvdc".to_string(),
                read_only: true,
                shared: true,
                queues: 1
            })
        );
        assert_eq!(config.disk("data").unwrap().vdev, "xvdb");
        assert_eq!(config.disk("data").unwrap().queues, 4);
        assert_eq!(config.disk("xvdc"), config.disk("iso"));
        assert_eq!(config.disk("xvdz").unwrap().vdev, "xvdz");
        assert_eq!(config.disk("../xvdz"), None);
        assert_eq!(config.disk(""), None);
    }

    #[test]
    fn mistakes_name_key_value_and_expectation() {
        let (_, errors) = Config::parse(
            "loglevel=loud evtchn=fifo patience=0 disk.a=xvdb,rw nonsense disk.b=xvdc disk.b=xvdd disk.=x",
        );
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "loglevel=loud: expected one of off, error, warn, info, debug, trace",
                "evtchn=fifo: expected 2l",
                "patience=0: expected a number of seconds, at least 1",
                "disk.a=xvdb,rw: expected <vdev>[,ro][,shared][,queues=<1 to 8>], such as xvdb,ro",
                "nonsense=: expected a known key: loglevel, evtchn, patience, disk.<name>, segment.<name>, forward.<segment>, rule.<segment>, lease.<segment>",
                "disk.b=xvdd: expected each disk to be named once",
                "disk.=x: expected a name of up to 32 letters, digits, '-' and '_' after \"disk.\"",
            ]
        );
    }

    #[test]
    fn a_network() {
        let (config, errors) = Config::parse(
            "rule.lab=deny,tcp,to=10.0.0.0/8,port=22-23 segment.out=uplink=vif0,address=dhcp,queues=4 \
             segment.lab=address=10.1.0.1/24,address=fd00::1/64,nat=out,dhcp=10.1.0.100-10.1.0.200,isolate,rate=100,metrics=9100 \
             forward.lab=tcp:8080:10.1.0.5:80 lease.lab=00:16:3e:01:02:03,10.1.0.5 rule.lab=allow segment.alone=",
        );
        assert_eq!(errors, []);
        let [out, lab, alone] = &config.segments[..] else {
            panic!("three segments")
        };
        assert_eq!(
            (&out.uplinks[..], out.address, out.queues),
            (&[0][..], Some(Address::Dhcp), 4)
        );
        assert_eq!(lab.address, Some(Address::Static("10.1.0.1/24".parse().unwrap())));
        assert_eq!(lab.address6, Some("fd00::1/64".parse().unwrap()));
        assert_eq!(
            (lab.nat.as_deref(), lab.isolate, lab.rate),
            (Some("out"), true, Some(100))
        );
        assert_eq!(lab.leases, [([0, 0x16, 0x3e, 1, 2, 3], [10, 1, 0, 5].into())]);
        assert_eq!(
            lab.forwards,
            [Forward {
                protocol: Protocol::Tcp,
                port: 8080,
                to: Endpoint::new([10, 1, 0, 5].into(), 80),
            }]
        );
        assert_eq!(lab.rules.len(), 2);
        assert_eq!(lab.rules[0].ports, Some(22..=23));
        assert!(!lab.rules[0].allow && lab.rules[1].allow);
        assert_eq!(alone.nat, None);
    }

    #[test]
    fn mistakes_in_a_network() {
        let mistakes = [
            "segment.a=uplink=eth0",
            "segment.a=uplink=vif0,uplink=vif0",
            "segment.a=address=10.1.0.1",
            "segment.a=address=10.1.0.0/24",
            // What a router would not take: of this network, of a group, reserved; of all hosts, this one,
            // and a group.
            "segment.a=address=0.1.0.1/24",
            "segment.a=address=224.0.0.1/24",
            "segment.a=address=250.0.0.1/24",
            "segment.a=address=::/64",
            "segment.a=address=::1/64",
            "segment.a=address=ff02::1/64",
            "segment.a=address=10.1.0.1/24,address=dhcp",
            "segment.a=address=10.1.0.1/24,dhcp=10.1.0.9-10.1.0.3",
            "segment.a=address=10.1.0.1/24,dhcp=10.1.0.1-10.1.0.3",
            "segment.a=address=10.1.0.1/24,dhcp=10.1.1.2-10.1.1.3",
            "segment.a=dhcp=10.1.1.2-10.1.1.3",
            "segment.a=address=10.1.0.1/24,gateway=10.2.0.1",
            "segment.a=address=10.1.0.1/24,nat=a",
            "segment.a=address=10.1.0.1/24,nat=b",
            "segment.a=address=10.1.0.1/24,nat=b segment.b=uplink=vif0",
            "segment.a=nat=b segment.b=uplink=vif0,address=dhcp",
            "segment.a=queues=0",
            "segment.a=queues=9",
            "segment.a=rate=0",
            "segment.a=metrics=9100",
            "segment.a=uplink=vif0,dns=9.9.9.9",
            "segment.a=address=fd00::1/64,dns=9.9.9.9",
            "segment.o=uplink=vif0,address=dhcp segment.a=address=10.1.0.1/24,nat=o,dns=10.1.0.53",
            "segment.a=isolate=1",
            "segment.a=isolated",
            "segment.=isolate",
            "segment.a=isolate segment.a=isolate",
            "segment.a=address=10.1.0.1/24 forward.a=tcp:80:10.1.0.5:80",
            "forward.a=tcp:80:10.1.0.5:80",
            "segment.a=address=10.1.0.1/24 lease.a=00:16:3e:01:02:03,10.1.0.5",
            "segment.a=address=10.1.0.1/24 rule.a=deny",
        ];
        for line in mistakes {
            let (_, errors) = Config::parse(line);
            assert_eq!(errors.len(), 1, "{line}: {errors:?}");
        }
        let (_, errors) = Config::parse("segment.a=uplink=vif0 segment.b=uplink=vif0");
        assert_eq!(errors.len(), 2);
        let nat = "segment.o=uplink=vif0,address=dhcp,metrics=9100 segment.a=address=10.1.0.1/24,nat=o,dhcp=10.1.0.9-10.1.0.20";
        for line in [
            "forward.a=tcp:80:10.1.0.5:80 forward.a=tcp:80:10.1.0.6:80",
            "segment.b=address=10.2.0.1/24,nat=o forward.a=tcp:80:10.1.0.5:80 forward.b=tcp:80:10.2.0.5:80",
            "forward.a=tcp:9100:10.1.0.5:80",
            "forward.a=udp:67:10.1.0.5:67",
            "forward.a=udp:68:10.1.0.5:68",
            "forward.a=udp:64512:10.1.0.5:53",
            "forward.a=tcp:80:10.1.1.5:80",
            "forward.a=icmp:80:10.1.0.5:80",
            "forward.a=tcp:0:10.1.0.5:80",
            "forward.a=tcp:80:10.1.0.1:80",
            "forward.a=tcp:80:10.1.0.5",
            "forward.a=tcp:80:10.1.0.5:80:1",
            "rule.a=",
            "rule.a=deny,sctp",
            "rule.a=deny,to=10.0.0.0/33",
            "rule.a=deny,port=9-8",
            "lease.a=01:16:3e:01:02:03,10.1.0.5",
            "lease.a=00:16:3e:01:02,10.1.0.5",
            "lease.a=00:16:3e:01:02:+3,10.1.0.5",
            "lease.a=00:16:3e:01:02:03,10.1.0.255",
            "rule.b=deny",
        ] {
            let (_, errors) = Config::parse(&std::format!("{nat} {line}"));
            assert_eq!(errors.len(), 1, "{line}: {errors:?}");
        }
    }

    proptest! {
        #[test]
        fn any_segment_is_read(words in proptest::collection::vec(
            ("(segment|forward|rule|lease)\\.[ab]", "(uplink=vif0|address=10\\.1\\.0\\.1/24|nat=[ab]|deny|tcp:1:10\\.1\\.0\\.5:2|,|dhcp=|[0-9./=,-]){0,6}"), 0..5))
        {
            let words: Vec<_> = words.into_iter().map(|(key, value)| std::format!("{key}={value}")).collect();
            let _ = Config::parse(&words.join(" "));
        }

        #[test]
        fn any_line_is_read(line in "\\PC*") {
            let _ = Config::parse(&line);
        }
    }
}
