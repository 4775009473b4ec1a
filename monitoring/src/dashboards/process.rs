//! The panels of a process, which every dashboard of processes has.

use super::THIRD;
use crate::dashboard::{Kind, Panel};
use crate::promql::{RANGE, of};

/// CPU, memory and open files by process. `having` is a metric that only these processes have.
pub(super) fn panels(having: schema::metric::Metric) -> [Panel; 3] {
    let only = |query: &str| format!("{query} and on (instance) {}", of(having.name, ""));
    let cpu = of("process_cpu_seconds_total", "");
    let files = of("process_open_fds", "");
    let max_files = of("process_max_fds", "");
    [
        Panel::new(
            "CPU",
            Kind::Lines,
            "percentunit",
            THIRD,
            "CPU time by process; 100 % is one core.",
        )
        .query(
            only(&format!("sum by (instance) (rate({cpu}[{RANGE}]))")),
            "{{instance}}",
        ),
        Panel::new(
            "Memory",
            Kind::Lines,
            "bytes",
            THIRD,
            "Resident memory by process.",
        )
        .query(
            only(&format!(
                "sum by (instance) ({})",
                of("process_resident_memory_bytes", "")
            )),
            "{{instance}}",
        ),
        Panel::new(
            "Open files",
            Kind::Lines,
            "percentunit",
            THIRD,
            "Open files and connections, as a part of the limit of the process.",
        )
        .query(
            only(&format!(
                "sum by (instance) ({files}) / sum by (instance) ({max_files})"
            )),
            "{{instance}}",
        ),
    ]
}
