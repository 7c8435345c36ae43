//! Counters of everything that is served, for those who operate the driver domain: as xenstore nodes and as
//! Prometheus text.

use alloc::{collections::BTreeMap, format, rc::Rc, string::String, vec::Vec};
use core::{
    cell::RefCell,
    fmt::{self, Write},
};

/// What something is counted for: `disk` of client 5, device 51712.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// `disk`, `net`, `disk-uplink`, `net-uplink`, `segment`, `router` or `domain`.
    pub kind: &'static str,
    /// Which of the kind: labels with values.
    pub labels: Vec<(&'static str, String)>,
}

/// Tells each counter of a subject, by its name. The names of a kind are always the same.
type Source = Rc<dyn Fn(&mut dyn FnMut(&'static str, u64))>;

/// The most bytes of a xenstore node that all versions of Xen take.
const MAX_NODE: usize = 2048;

/// All that is counted.
#[derive(Clone, Default)]
pub struct Statistics(Rc<RefCell<BTreeMap<Subject, Source>>>);

/// Keeps a subject in the statistics until it is dropped.
pub struct Registration {
    statistics: Statistics,
    subject: Subject,
    source: Source,
}

impl Subject {
    /// A subject of a kind, with labels.
    pub fn new(kind: &'static str, labels: &[(&'static str, &str)]) -> Self {
        Self {
            kind,
            labels: labels
                .iter()
                .map(|(label, value)| (*label, (*value).into()))
                .collect(),
        }
    }

    /// Where its counters stand in xenstore, below the domain's own `data/`.
    pub fn path(&self) -> String {
        let mut path = String::from(self.kind);
        for (_, value) in &self.labels {
            path.push('/');
            path.push_str(value);
        }
        path
    }
}

impl Statistics {
    /// Counts for a subject from now on, in place of what was counted for it before.
    pub fn register(
        &self,
        subject: Subject,
        source: impl Fn(&mut dyn FnMut(&'static str, u64)) + 'static,
    ) -> Registration {
        let source: Source = Rc::new(source);
        self.0.borrow_mut().insert(subject.clone(), source.clone());
        Registration {
            statistics: self.clone(),
            subject,
            source,
        }
    }

    /// The xenstore nodes as they are now: path below `data/`, and `name=value` with spaces between them.
    pub fn nodes(&self) -> BTreeMap<String, String> {
        let mut nodes = BTreeMap::new();
        for (subject, source) in self.snapshot() {
            let mut text = String::new();
            source(&mut |name, value| {
                let separator = if text.is_empty() { "" } else { " " };
                let counter = format!("{separator}{name}={value}");
                if text.len() + counter.len() <= MAX_NODE {
                    text.push_str(&counter);
                }
            });
            nodes.insert(subject.path(), text);
        }
        nodes
    }

    /// Writes all counters in Prometheus' text format, version 0.0.4.
    pub fn write_prometheus(&self, to: &mut dyn Write) -> fmt::Result {
        // The lines of one metric have to stand together.
        let mut metrics: BTreeMap<String, String> = BTreeMap::new();
        for (subject, source) in self.snapshot() {
            let labels: Vec<_> = subject
                .labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{value}\""))
                .collect();
            let labels = labels.join(",");
            source(&mut |name, value| {
                let metric = format!("virtio_stubdom_{}_{name}", subject.kind).replace('-', "_");
                let lines = metrics.entry(metric).or_default();
                let _ = writeln!(lines, "{{{labels}}} {value}");
            });
        }
        for (metric, lines) in metrics {
            writeln!(to, "# TYPE {metric} untyped")?;
            for line in lines.lines() {
                writeln!(to, "{metric}{}", line.strip_prefix("{}").unwrap_or(line))?;
            }
        }
        Ok(())
    }

    /// The sources, so that none is called while the table is borrowed.
    fn snapshot(&self) -> Vec<(Subject, Source)> {
        self.0
            .borrow()
            .iter()
            .map(|(subject, source)| (subject.clone(), source.clone()))
            .collect()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut sources = self.statistics.0.borrow_mut();
        // Unless another one has taken its place.
        if sources
            .get(&self.subject)
            .is_some_and(|source| Rc::ptr_eq(source, &self.source))
        {
            sources.remove(&self.subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_metrics() {
        let statistics = Statistics::default();
        let disk = |device: &str| Subject::new("disk", &[("client", "5"), ("device", device)]);
        let first = statistics.register(disk("51712"), |each| {
            each("reads", 3);
            each("read-bytes", 4096);
        });
        let _second = statistics.register(disk("51728"), |each| each("reads", 4));
        let _domain = statistics.register(Subject::new("domain", &[]), |each| each("hypercalls", 9));
        let nodes = statistics.nodes();
        assert_eq!(nodes["disk/5/51712"], "reads=3 read-bytes=4096");
        assert_eq!(nodes["domain"], "hypercalls=9");
        let mut text = String::new();
        statistics.write_prometheus(&mut text).unwrap();
        assert_eq!(
            text,
            "# TYPE virtio_stubdom_disk_read_bytes untyped\n\
             virtio_stubdom_disk_read_bytes{client=\"5\",device=\"51712\"} 4096\n\
             # TYPE virtio_stubdom_disk_reads untyped\n\
             virtio_stubdom_disk_reads{client=\"5\",device=\"51712\"} 3\n\
             virtio_stubdom_disk_reads{client=\"5\",device=\"51728\"} 4\n\
             # TYPE virtio_stubdom_domain_hypercalls untyped\n\
             virtio_stubdom_domain_hypercalls 9\n"
        );
        drop(first);
        assert!(!statistics.nodes().contains_key("disk/5/51712"));
    }

    #[test]
    fn a_successor_stays() {
        let statistics = Statistics::default();
        let domain = || Subject::new("domain", &[]);
        let first = statistics.register(domain(), |tell| tell("counter", 1));
        let second = statistics.register(domain(), |tell| tell("counter", 2));
        drop(first);
        assert_eq!(statistics.nodes()["domain"], "counter=2");
        drop(second);
        assert!(statistics.nodes().is_empty());
    }

    #[test]
    fn a_node_is_never_too_long() {
        let statistics = Statistics::default();
        let _long = statistics.register(Subject::new("domain", &[]), |each| {
            (0..500).for_each(|_| each("counter", u64::MAX))
        });
        assert!(statistics.nodes()["domain"].len() <= MAX_NODE);
    }
}
