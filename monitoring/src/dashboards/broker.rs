//! Broker: the queues and the state of RabbitMQ, by the metrics of its own plugin.
//!
//! RabbitMQ needs the setting `prometheus.return_per_object_metrics = true`: without it, the plugin
//! does not name queues. At `/metrics/per-object` it does, and leaves the alarms out.

use schema::topology;

use super::THIRD;
use crate::dashboard::{Dashboard, Kind, Panel};
use crate::promql::{RANGE, of};

/// The id in links.
pub const UID: &str = "gridwatch-broker";

pub(super) fn dashboard() -> Dashboard {
    let mut panels = queues();
    panels.extend(node());
    Dashboard {
        uid: UID,
        title: "Gridwatch: broker",
        description: "The queues and the state of RabbitMQ.",
        from: "now-1h",
        refresh: "10s",
        variables: Vec::new(),
        panels,
    }
}

/// A metric of both queues.
fn queues_of(name: &str) -> String {
    let queues = format!(
        r#"queue=~"{}|{}""#,
        topology::READINGS,
        topology::DEAD_LETTERS
    );
    format!(
        "sum by (queue) ({})",
        of(name, &queues.replace('.', r"\\."))
    )
}

/// A metric of a node.
fn node_of(name: &str) -> String {
    format!("sum by (instance) ({})", of(name, ""))
}

fn panel(title: &'static str, unit: &'static str, description: &'static str) -> Panel {
    Panel::new(title, Kind::Lines, unit, THIRD, description)
}

fn queues() -> Vec<Panel> {
    vec![
        panel(
            "Messages that wait",
            "short",
            "Messages that no worker has. Each is a batch of up to 4,096 readings.",
        )
        .query(queues_of("rabbitmq_queue_messages_ready"), "{{queue}}"),
        panel(
            "Messages in the workers",
            "short",
            "Delivered and not acknowledged.",
        )
        .query(queues_of("rabbitmq_queue_messages_unacked"), "{{queue}}"),
        panel(
            "Bytes in the queues",
            "bytes",
            "At 8 GiB RabbitMQ refuses messages.",
        )
        .query(queues_of("rabbitmq_queue_messages_bytes"), "{{queue}}")
        .query(format!("vector({})", topology::MAX_QUEUE_BYTES), "bound"),
        panel(
            "Consumers",
            "short",
            "Workers that are connected. The queue of dead letters has none.",
        )
        .query(queues_of("rabbitmq_queue_consumers"), "{{queue}}"),
        panel(
            "Messages per second",
            "short",
            "Messages that RabbitMQ received, delivered and got an acknowledgement for.",
        )
        .query(
            rate_of("rabbitmq_global_messages_received_total"),
            "received",
        )
        .query(
            rate_of("rabbitmq_global_messages_delivered_total"),
            "delivered",
        )
        .query(
            rate_of("rabbitmq_global_messages_acknowledged_total"),
            "acknowledged",
        ),
        panel(
            "Messages sent again",
            "short",
            "Messages per second that were delivered again, because a worker was lost.",
        )
        .query(
            rate_of("rabbitmq_global_messages_redelivered_total"),
            "sent again",
        ),
    ]
}

fn rate_of(name: &str) -> String {
    format!("sum(rate({}[{RANGE}]))", of(name, ""))
}

fn node() -> Vec<Panel> {
    vec![
        panel(
            "Alarms",
            "short",
            "1: the node is out of memory or disk, and accepts no messages.",
        )
        .query(
            node_of("rabbitmq_alarms_memory_used_watermark"),
            "{{instance}}, memory",
        )
        .query(
            node_of("rabbitmq_alarms_free_disk_space_watermark"),
            "{{instance}}, disk",
        ),
        panel("Memory", "bytes", "Memory of a node, and its limit.")
            .query(
                node_of("rabbitmq_process_resident_memory_bytes"),
                "{{instance}}",
            )
            .query(
                node_of("rabbitmq_resident_memory_limit_bytes"),
                "{{instance}}, limit",
            ),
        panel(
            "Free disk",
            "bytes",
            "Free bytes, and the limit of the alarm.",
        )
        .query(
            node_of("rabbitmq_disk_space_available_bytes"),
            "{{instance}}",
        )
        .query(
            node_of("rabbitmq_disk_space_available_limit_bytes"),
            "{{instance}}, limit",
        ),
        panel(
            "Connections and channels",
            "short",
            "Those of front ends and workers.",
        )
        .query(node_of("rabbitmq_connections"), "{{instance}}, connections")
        .query(node_of("rabbitmq_channels"), "{{instance}}, channels"),
        panel(
            "Open files",
            "percentunit",
            "Open files, as a part of the limit of the process.",
        )
        .query(
            format!(
                "{} / {}",
                node_of("rabbitmq_process_open_fds"),
                node_of("rabbitmq_process_max_fds")
            ),
            "{{instance}}",
        ),
        panel(
            "Raft",
            "short",
            "Entries per second that the quorum queues write to their log, and those that are not \
             committed yet.",
        )
        .query(
            format!(
                "sum by (instance) (rate({}[{RANGE}]))",
                of("rabbitmq_raft_log_last_written_index", "")
            ),
            "{{instance}}, written",
        )
        .query(
            format!(
                "sum by (instance) ({} - {})",
                of("rabbitmq_raft_log_last_written_index", ""),
                of("rabbitmq_raft_log_commit_index", "")
            ),
            "{{instance}}, not committed",
        ),
    ]
}
