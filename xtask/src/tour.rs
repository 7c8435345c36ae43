//! `cargo xtask run`: the main job as a short tour.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::host;
use crate::lab::{self, Lab};
use crate::suite::Suite;
use crate::ui::{self, Step};

/// Where to go, and whether to stay.
pub struct Options {
    /// The release that the bed runs on.
    pub suite: Suite,
    /// Whether to leave everything up, with a shell in dom0.
    pub keep: bool,
    /// Where logs are kept; without it, in a temporary folder that stays if something fails.
    pub logs: Option<PathBuf>,
    /// The images that the bed is given.
    pub images: Vec<(PathBuf, PathBuf)>,
}

/// Boots the bed and goes through the tour of `tests/bed/dom0/tour`.
pub fn run(options: Options) -> Result<()> {
    ui::line(format!(
        "── Xen {} starts in QEMU, with Debian's dom0",
        options.suite.xen()
    ));
    let script = format!(
        "#!/bin/bash\n{}exec /srv/bed/tour\n",
        if options.keep { "export keep=1\n" } else { "" }
    );
    let mut add = options.images;
    add.push((host::root().join("tests/lib.sh"), "/srv/bed/lib.sh".into()));
    let lab = Lab {
        suite: options.suite,
        driver: true,
        // Whoever looks around takes time by their own clock.
        icount: !options.keep,
        script: Some(script.into_bytes()),
        shell: options.keep,
        add,
        files: Vec::new(),
        logs: options.logs,
        timeout: None,
    };
    let mut current: Option<Step> = None;
    let outcome = lab.run(|line| {
        // The step before goes with its spinner; what it printed stays.
        current = None;
        if !options.keep {
            current = line.strip_prefix("step ").map(Step::quiet);
        }
        None
    })?;
    drop(current);
    if matches!(outcome.status, Ok(0)) {
        return Ok(());
    }
    let (status, logs) = outcome.keep_logs();
    lab::show_consoles(&logs);
    let status = status?;
    ensure!(status == 0, "the tour ended with status {status}");
    Ok(())
}
