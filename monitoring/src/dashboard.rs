//! A Grafana dashboard: its panels, and its JSON.
//!
//! In: rows of panels with their queries. Out: the JSON that Grafana imports and provisions. The
//! data sources are variables, so that a dashboard belongs to no installation.

use serde_json::{Map, Value, json};

use crate::promql::DEPLOYMENT;

/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;
/// The version of the dashboard's JSON, which Grafana 10 and later read.
const SCHEMA_VERSION: u32 = 39;
/// Longest table that a panel shows.
pub const MAX_ROWS: u32 = 200;

/// Where a query runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Prometheus, in PromQL.
    Prometheus,
    /// PostgreSQL, in SQL.
    Postgres,
}

impl Source {
    /// The type of the data source in Grafana.
    const fn plugin(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::Postgres => "grafana-postgresql-datasource",
        }
    }

    /// The variable of the dashboard that holds the data source.
    const fn variable(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::Postgres => "postgresql",
        }
    }

    fn reference(self) -> Value {
        json!({ "type": self.plugin(), "uid": format!("${{{}}}", self.variable()) })
    }
}

/// A query of a panel.
#[derive(Debug, Clone)]
pub struct Query {
    /// Where it runs.
    pub source: Source,
    /// PromQL or SQL.
    pub text: String,
    /// The name of its lines, with labels in double braces.
    legend: String,
}

/// How a panel shows its queries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Lines over time.
    Lines,
    /// Lines over time that may be below zero.
    SignedLines,
    /// Lines over time, stacked.
    Stacked,
    /// The last value, with the values from which it is orange and red.
    Value {
        /// From here on it is orange.
        warn: f64,
        /// From here on it is red.
        bad: f64,
    },
    /// The last value, without a judgement.
    Plain,
    /// The buckets of a histogram over time.
    HeatMap,
    /// Rows and columns.
    Table,
}

/// A panel.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Its title, which is unique in its dashboard.
    pub title: &'static str,
    /// Its queries.
    pub queries: Vec<Query>,
    description: &'static str,
    kind: Kind,
    unit: &'static str,
    width: u32,
    height: u32,
}

impl Panel {
    /// A panel without queries. The unit is one of Grafana's.
    pub fn new(
        title: &'static str,
        kind: Kind,
        unit: &'static str,
        (width, height): (u32, u32),
        description: &'static str,
    ) -> Self {
        Self {
            title,
            queries: Vec::new(),
            description,
            kind,
            unit,
            width,
            height,
        }
    }

    /// With one more query in PromQL.
    #[must_use]
    pub fn query(mut self, text: impl Into<String>, legend: &str) -> Self {
        self.queries.push(Query {
            source: Source::Prometheus,
            text: text.into(),
            legend: legend.into(),
        });
        self
    }

    /// With one more query in SQL.
    #[must_use]
    pub fn sql(mut self, text: impl Into<String>) -> Self {
        self.queries.push(Query {
            source: Source::Postgres,
            text: text.into(),
            legend: String::new(),
        });
        self
    }

    fn source(&self) -> Source {
        self.queries
            .first()
            .map_or(Source::Prometheus, |query| query.source)
    }

    fn json(&self, id: usize, (x, y): (u32, u32)) -> Value {
        let kind = match self.kind {
            Kind::Lines | Kind::SignedLines | Kind::Stacked => "timeseries",
            Kind::Value { .. } | Kind::Plain => "stat",
            Kind::HeatMap => "heatmap",
            Kind::Table => "table",
        };
        let targets = self.queries.iter().enumerate();
        let targets: Vec<Value> = targets
            .map(|(number, query)| self.target(number, query))
            .collect();
        json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.description,
            "datasource": self.source().reference(),
            "gridPos": { "x": x, "y": y, "w": self.width, "h": self.height },
            "targets": targets,
            "options": self.options(),
            "fieldConfig": { "defaults": self.field(), "overrides": [] },
        })
    }

    fn target(&self, number: usize, query: &Query) -> Value {
        let reference = char::from(b'A' + u8::try_from(number % 26).unwrap_or_default());
        let is_instant = matches!(self.kind, Kind::Table);
        let common = json!({
            "refId": reference.to_string(),
            "datasource": query.source.reference(),
        });
        let own = match query.source {
            Source::Prometheus => json!({
                "expr": query.text,
                "legendFormat": query.legend,
                "editorMode": "code",
                "instant": is_instant,
                "range": !is_instant,
                "format": match self.kind {
                    Kind::HeatMap => "heatmap",
                    Kind::Table => "table",
                    _ => "time_series",
                },
            }),
            Source::Postgres => json!({
                "rawSql": query.text,
                "rawQuery": true,
                "editorMode": "code",
                "format": match self.kind {
                    Kind::Lines | Kind::SignedLines | Kind::Stacked => "time_series",
                    _ => "table",
                },
            }),
        };
        merged(common, own)
    }

    fn options(&self) -> Value {
        match self.kind {
            Kind::Lines | Kind::SignedLines | Kind::Stacked => json!({
                "legend": {
                    "calcs": ["lastNotNull"], "displayMode": "list", "placement": "bottom",
                    "showLegend": true,
                },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Kind::Value { .. } | Kind::Plain => json!({
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                "colorMode": "value",
                "graphMode": "area",
                "justifyMode": "auto",
                "orientation": "auto",
                "textMode": "auto",
                "wideLayout": true,
                "showPercentChange": false,
                "percentChangeColorMode": "standard",
            }),
            Kind::HeatMap => json!({
                "calculate": false,
                "cellGap": 1,
                "color": {
                    "mode": "scheme", "scheme": "Oranges", "scale": "exponential",
                    "exponent": 0.5, "fill": "dark-orange", "reverse": false, "steps": 64,
                },
                "exemplars": { "color": "rgba(255,0,255,0.7)" },
                "filterValues": { "le": 1e-9 },
                "legend": { "show": true },
                "rowsFrame": { "layout": "auto" },
                "showValue": "never",
                "tooltip": { "mode": "single", "yHistogram": true },
                "yAxis": { "axisPlacement": "left", "reverse": false, "unit": self.unit },
            }),
            Kind::Table => json!({
                "showHeader": true,
                "frameIndex": 0,
                "cellHeight": "sm",
            }),
        }
    }

    fn field(&self) -> Value {
        let steps = match self.kind {
            Kind::Value { warn, bad } => json!([
                { "color": "green", "value": null },
                { "color": "orange", "value": warn },
                { "color": "red", "value": bad },
            ]),
            _ => json!([{ "color": "blue", "value": null }]),
        };
        let custom = match self.kind {
            Kind::Lines | Kind::SignedLines => {
                json!({ "fillOpacity": 5, "lineWidth": 1, "showPoints": "never" })
            }
            Kind::Stacked => json!({
                "fillOpacity": 40, "lineWidth": 1, "showPoints": "never",
                "stacking": { "group": "A", "mode": "normal" },
            }),
            Kind::Table => {
                json!({ "align": "auto", "cellOptions": { "type": "auto" }, "inspect": false })
            }
            _ => json!({}),
        };
        let mode = match self.kind {
            Kind::Value { .. } | Kind::Plain => "thresholds",
            _ => "palette-classic",
        };
        let mut field = json!({
            "unit": self.unit,
            "color": { "mode": mode },
            "thresholds": { "mode": "absolute", "steps": steps },
            "custom": custom,
        });
        if matches!(self.kind, Kind::Lines | Kind::Stacked) {
            field["min"] = json!(0);
        }
        field
    }
}

/// A variable of a dashboard, besides the data sources and the deployment.
#[derive(Debug, Clone, Copy)]
pub enum Variable {
    /// A text that a person enters.
    Text {
        /// Its name.
        name: &'static str,
        /// What the page calls it.
        label: &'static str,
        /// Its value at first.
        value: &'static str,
    },
    /// A choice from the first column of a query in SQL.
    Sql {
        /// Its name.
        name: &'static str,
        /// What the page calls it.
        label: &'static str,
        /// The query.
        query: &'static str,
    },
}

/// A dashboard.
#[derive(Debug, Clone)]
pub struct Dashboard {
    /// Its id in links, and the name of its file.
    pub uid: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What it answers.
    pub description: &'static str,
    /// How far back it begins, such as `now-1h`.
    pub from: &'static str,
    /// How often it is read again, such as `10s`. A query in SQL may read many readings.
    pub refresh: &'static str,
    /// Its variables, besides the data sources and the deployment.
    pub variables: Vec<Variable>,
    /// Its panels, from left to right and from top to bottom.
    pub panels: Vec<Panel>,
}

impl Dashboard {
    /// The path of a panel in Grafana, for one deployment. `None` if there is no such panel.
    pub fn link(&self, title: &str, deployment: &str) -> Option<String> {
        let at = self.panels.iter().position(|panel| panel.title == title)?;
        let (uid, id) = (self.uid, at + 1);
        Some(format!(
            "/d/{uid}?viewPanel={id}&var-{DEPLOYMENT}={deployment}"
        ))
    }

    /// The data sources that its panels use.
    fn sources(&self) -> Vec<Source> {
        let uses = |source| {
            let mut queries = self.panels.iter().flat_map(|panel| &panel.queries);
            queries.any(|query: &Query| query.source == source)
        };
        // Prometheus is always there, because it has the alerts and the names of the deployments.
        let mut sources = vec![Source::Prometheus];
        if uses(Source::Postgres) {
            sources.push(Source::Postgres);
        }
        sources
    }

    /// The text of its file.
    pub fn text(&self) -> String {
        let mut text = format!("{:#}", sorted(self.json()));
        text.push('\n');
        text
    }

    fn json(&self) -> Value {
        let (mut x, mut y, mut row_height) = (0, 0, 0);
        let mut panels = Vec::new();
        for (at, panel) in self.panels.iter().enumerate() {
            if x + panel.width > COLUMNS {
                (x, y, row_height) = (0, y + row_height, 0);
            }
            panels.push(panel.json(at + 1, (x, y)));
            x += panel.width;
            row_height = row_height.max(panel.height);
        }
        let sources = self.sources().into_iter().map(source_variable);
        let variables: Vec<Value> = sources
            .chain([deployment_variable()])
            .chain(self.variables.iter().map(variable))
            .collect();
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["gridwatch"],
            "editable": true,
            "graphTooltip": 1,
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "timezone": "browser",
            "refresh": self.refresh,
            "time": { "from": self.from, "to": "now" },
            "templating": { "list": variables },
            "annotations": { "list": [alerts()] },
            "links": [{
                "title": "Gridwatch", "type": "dashboards", "tags": ["gridwatch"], "icon": "",
                "tooltip": "", "url": "", "asDropdown": true, "includeVars": true,
                "keepTime": true, "targetBlank": false,
            }],
            "panels": panels,
        })
    }
}

/// The firing alerts, as annotations.
fn alerts() -> Value {
    json!({
        "name": "Alerts",
        "datasource": Source::Prometheus.reference(),
        "enable": true,
        "hide": false,
        "iconColor": "red",
        "expr": crate::promql::of("ALERTS", r#"alertstate="firing""#),
        "step": "60s",
        "titleFormat": "{{alertname}}",
        "tagKeys": "severity,instance",
        "useValueForTime": false,
    })
}

fn source_variable(source: Source) -> Value {
    json!({
        "type": "datasource",
        "name": source.variable(),
        "label": match source {
            Source::Prometheus => "Prometheus",
            Source::Postgres => "PostgreSQL",
        },
        "query": source.plugin(),
        "regex": "",
        "refresh": 1,
        "hide": 0,
        "includeAll": false,
        "multi": false,
    })
}

fn deployment_variable() -> Value {
    let build = schema::metric::BUILD_INFO.name;
    let query = format!("label_values({build}, {DEPLOYMENT})");
    json!({
        "type": "query",
        "name": DEPLOYMENT,
        "label": "deployment",
        "datasource": Source::Prometheus.reference(),
        "query": { "query": query, "refId": "deployments" },
        "refresh": 2,
        "sort": 1,
        "regex": "",
        "hide": 0,
        "includeAll": false,
        "multi": false,
    })
}

fn variable(variable: &Variable) -> Value {
    match *variable {
        Variable::Text { name, label, value } => json!({
            "type": "textbox", "name": name, "label": label, "query": value, "hide": 0,
            "current": { "text": value, "value": value },
        }),
        Variable::Sql { name, label, query } => json!({
            "type": "query", "name": name, "label": label, "query": query,
            "datasource": Source::Postgres.reference(), "refresh": 2, "sort": 0, "regex": "",
            "hide": 0, "includeAll": false, "multi": false,
        }),
    }
}

fn merged(first: Value, second: Value) -> Value {
    match (first, second) {
        (Value::Object(mut first), Value::Object(second)) => {
            first.extend(second);
            Value::Object(first)
        }
        (_, second) => second,
    }
}

/// With the members of every object in alphabetical order, whatever order the JSON library of a
/// build keeps.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            let members = members
                .into_iter()
                .map(|(name, value)| (name, sorted(value)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}
