//! The OpenAPI document as a page for people: HTML without scripts.
//!
//! In: the document. Out: a page with every operation, its parameters, its bodies, its errors, and
//! a command to try.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The style sheet of the page.
pub(super) const STYLE: &str = include_str!("style.css");

/// The page.
pub(super) fn render(document: &Value) -> String {
    let title = text(&document["info"]["title"]);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}: the HTTP API</title>\
         <link rel=\"stylesheet\" href=\"/docs/style.css\"></head>\n<body>\n"
    );
    navigation(&mut html, document);
    let version = text(&document["info"]["version"]);
    let _ = writeln!(html, "<main>\n<h1>{title} {version}: the HTTP API</h1>");
    prose(&mut html, &document["info"]["description"]);
    html.push_str(
        "<p>The same as an OpenAPI 3.1 document: <a href=\"/openapi.json\">/openapi.json</a>. In \
         the commands, <code>$URL</code> is the address of this server, such as \
         <code>http://127.0.0.1:8080</code>.</p>\n",
    );
    for_each_tag(document, |tag, operations| {
        let _ = writeln!(html, "<h2 id=\"tag-{}\">{}</h2>", slug(tag), escape(tag));
        for (path, method, operation) in operations {
            render_operation(&mut html, path, method, operation);
        }
    });
    html.push_str("<h2 id=\"schemas\">Schemas</h2>\n");
    for (name, schema) in members(&document["components"]["schemas"]) {
        let name = escape(name);
        let _ = writeln!(html, "<section id=\"schema-{name}\"><h3>{name}</h3>");
        prose(&mut html, &schema["description"]);
        render_schema(&mut html, schema);
        html.push_str("</section>\n");
    }
    html.push_str("<h2 id=\"errors\">Errors of every path</h2>\n");
    let responses = &document["components"]["responses"];
    for (_, response) in members(responses) {
        render_contents(&mut html, &text(&response["description"]), response);
    }
    html.push_str("</main>\n</body></html>\n");
    html
}

type Entry<'a> = (&'a str, &'a str, &'a Value);

fn for_each_tag(document: &Value, mut render: impl FnMut(&str, Vec<Entry<'_>>)) {
    for tag in list(&document["tags"]) {
        let name = tag["name"].as_str().unwrap_or_default();
        let mut operations = Vec::new();
        for (path, methods) in members(&document["paths"]) {
            for method in ["get", "post", "put", "patch", "delete"] {
                let operation = &methods[method];
                if operation["tags"][0] == name {
                    operations.push((path.as_str(), method, operation));
                }
            }
        }
        render(name, operations);
    }
}

fn navigation(html: &mut String, document: &Value) {
    html.push_str("<nav>\n");
    for_each_tag(document, |tag, operations| {
        let _ = writeln!(
            html,
            "<a href=\"#tag-{}\">{}</a>\n<ul>",
            slug(tag),
            escape(tag)
        );
        for (_, _, operation) in operations {
            let (id, summary) = (text(&operation["operationId"]), text(&operation["summary"]));
            let _ = writeln!(html, "<li><a href=\"#{id}\">{summary}</a></li>");
        }
        html.push_str("</ul>\n");
    });
    html.push_str("<a href=\"#schemas\">Schemas</a>\n<a href=\"#errors\">Errors</a>\n</nav>\n");
}

fn render_operation(html: &mut String, path: &str, method: &str, operation: &Value) {
    let (id, summary) = (text(&operation["operationId"]), text(&operation["summary"]));
    let _ = writeln!(
        html,
        "<section id=\"{id}\"><h3>{summary}</h3>\n<p class=\"path\"><b class=\"{method}\">{}</b> \
         {}</p>",
        method.to_uppercase(),
        escape(path)
    );
    prose(html, &operation["description"]);
    let command = command(path, method, operation);
    let _ = writeln!(html, "<pre>{}</pre>", escape(&command));
    let parameters = list(&operation["parameters"]);
    if !parameters.is_empty() {
        html.push_str("<h4>Parameters</h4>\n<table>\n");
        for parameter in parameters {
            let needed = if parameter["required"] == true {
                ", required"
            } else {
                ""
            };
            let _ = write!(
                html,
                "<tr><td><code>{}</code><br><small>{}{needed}</small></td><td>{}</td><td>",
                text(&parameter["name"]),
                text(&parameter["in"]),
                kind(&parameter["schema"])
            );
            prose(html, &parameter["description"]);
            html.push_str("</td></tr>\n");
        }
        html.push_str("</table>\n");
    }
    let body = &operation["requestBody"];
    if body.is_object() {
        html.push_str("<h4>Body</h4>\n");
        prose(html, &body["description"]);
        render_contents(html, "", body);
    }
    html.push_str("<h4>Responses</h4>\n");
    for (status, response) in members(&operation["responses"]) {
        let heading = format!("{status} {}", text(&response["description"]));
        render_contents(html, &heading, response);
    }
    html.push_str("</section>\n");
}

/// A response or a body: its headers, and each of its forms with its examples.
fn render_contents(html: &mut String, heading: &str, value: &Value) {
    let open = if heading.is_empty() { " open" } else { "" };
    let _ = writeln!(html, "<details{open}><summary>{}</summary>", code(heading));
    for (name, header) in members(&value["headers"]) {
        let (name, description) = (escape(name), text(&header["description"]));
        let _ = writeln!(html, "<p>header <code>{name}</code>: {description}</p>");
    }
    for (media_type, content) in members(&value["content"]) {
        let _ = writeln!(html, "<p><code>{}</code></p>", escape(media_type));
        render_schema(html, &content["schema"]);
        let named = members(&content["examples"]).map(|(_, example)| &example["value"]);
        for example in named.chain(content.get("example")) {
            let example = match example {
                Value::String(own) => own.clone(),
                other => format!("{other:#}"),
            };
            let _ = writeln!(html, "<pre>{}</pre>", escape(&example));
        }
    }
    html.push_str("</details>\n");
}

/// The properties of an object as a table; of a list, those of its items.
fn render_schema(html: &mut String, schema: &Value) {
    if let Some(items) = schema.get("items") {
        render_schema(html, items);
    }
    if members(&schema["properties"]).next().is_none() {
        if schema.get("items").is_none() && schema["type"] != "string" {
            let _ = writeln!(html, "<p>{}</p>", kind(schema));
        }
        return;
    }
    html.push_str("<table>\n");
    for (name, property) in members(&schema["properties"]) {
        let required = list(&schema["required"]).contains(&Value::from(name.as_str()));
        let needed = if required {
            ""
        } else {
            "<br><small>optional</small>"
        };
        let name = escape(name);
        let _ = write!(
            html,
            "<tr><td><code>{name}</code>{needed}</td><td>{}</td><td>",
            kind(property)
        );
        prose(html, &property["description"]);
        let inner = property.get("items").unwrap_or(property);
        if inner.get("properties").is_some() {
            render_schema(html, inner);
        }
        html.push_str("</td></tr>\n");
    }
    html.push_str("</table>\n");
}

/// What a schema accepts, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        let name = escape(name.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    for combined in ["anyOf", "allOf"] {
        let parts = list(&schema[combined]);
        if !parts.is_empty() {
            let parts: Vec<String> = parts
                .iter()
                .map(kind)
                .filter(|own| !own.is_empty())
                .collect();
            return parts.join(if combined == "anyOf" { " or " } else { " " });
        }
    }
    let names = list(&schema["enum"]);
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(text).collect();
        return names.join(", ");
    }
    let mut kind = match &schema["type"] {
        Value::Array(types) => types.iter().map(text).collect::<Vec<_>>().join(" or "),
        own => text(own),
    };
    if let Some(format) = schema["format"].as_str() {
        kind = kind.replace("string", &escape(format));
    }
    if let Some(items) = schema.get("items") {
        kind = format!("{kind} of {}", self::kind(items));
    }
    for (name, sign) in [
        ("minimum", "≥"),
        ("exclusiveMinimum", "&gt;"),
        ("maximum", "≤"),
    ] {
        if let Some(bound) = schema.get(name) {
            let _ = write!(kind, " {sign} {bound}");
        }
    }
    if let Some(length) = schema.get("maxLength") {
        let _ = write!(kind, ", at most {length} bytes");
    }
    kind
}

/// A command that sends the example of an operation.
fn command(path: &str, method: &str, operation: &Value) -> String {
    let mut path = path.to_owned();
    let (mut query, mut headers) = (Vec::new(), String::new());
    for parameter in list(&operation["parameters"]) {
        let name = parameter["name"].as_str().unwrap_or_default();
        let example = match parameter.get("example") {
            None => continue,
            Some(Value::String(example)) => example.clone(),
            Some(Value::Array(items)) => {
                let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                items.join(",")
            }
            Some(other) => other.to_string(),
        };
        match parameter["in"].as_str() {
            Some("path") => path = path.replace(&format!("{{{name}}}"), &example),
            Some("query") => query.push(format!("{name}={example}")),
            _ => headers.push_str(&format!(" \\\n  -H '{name}: {example}'")),
        }
    }
    let query = if query.is_empty() {
        String::new()
    } else {
        format!("?{}", query.join("&"))
    };
    let method = match method {
        "get" => String::new(),
        other => format!("-X {} ", other.to_uppercase()),
    };
    let mut command = format!("curl {method}\"$URL{path}{query}\"{headers}");
    if let Some((media_type, content)) = members(&operation["requestBody"]["content"]).next() {
        let example = match &content["example"] {
            Value::String(example) => example.clone(),
            other => other.to_string(),
        };
        let example = example.replace('\'', r"'\''");
        let _ = write!(
            command,
            " \\\n  -H 'content-type: {media_type}' -d '{example}'"
        );
    }
    command
}

/// Plain text with paragraphs, lists, `code` and **bold** as HTML.
fn prose(html: &mut String, value: &Value) {
    let Some(text) = value.as_str().filter(|text| !text.is_empty()) else {
        return;
    };
    for paragraph in text.split("\n\n") {
        match paragraph.strip_prefix("- ") {
            Some(items) => {
                html.push_str("<ul>\n");
                for item in items.split("\n- ") {
                    let _ = writeln!(html, "<li>{}</li>", code(&escape(item)));
                }
                html.push_str("</ul>\n");
            }
            None => {
                let _ = writeln!(html, "<p>{}</p>", code(&escape(paragraph)));
            }
        }
    }
}

/// Marks `code` and **bold** in text that is escaped.
fn code(escaped: &str) -> String {
    let mut html = String::with_capacity(escaped.len());
    for (index, part) in escaped.split('`').enumerate() {
        if index % 2 == 1 {
            let _ = write!(html, "<code>{part}</code>");
            continue;
        }
        for (index, part) in part.split("**").enumerate() {
            match index % 2 {
                1 => html.extend(["<b>", part, "</b>"]),
                _ => html.push_str(part),
            }
        }
    }
    html
}

/// The text of a JSON value as HTML.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text),
        Value::Null => String::new(),
        other => escape(&other.to_string()),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn slug(text: &str) -> String {
    escape(text).to_lowercase().replace(' ', "-")
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
