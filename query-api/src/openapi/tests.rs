//! The description against the routes, the parsers and itself.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use service::openapi::{Accepts, Parameter, Place};
use store::testing;
use tower::ServiceExt as _;

use super::model::DEFINITIONS;
use super::*;

/// The routes on a database that has what the examples name.
async fn router() -> Router {
    let url = testing::create_database().await;
    let client = testing::connect(&url).await;
    client
        .batch_execute(
            "INSERT INTO component (id, kind, name)
             VALUES ('0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e', 'station', 'Station 12');
             INSERT INTO device (external_id, component)
             VALUES ('meter-1', '0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e');
             INSERT INTO series (device_id, metric, unit) SELECT id, 'energy', 'kWh' FROM device",
        )
        .await
        .unwrap();
    crate::routes(testing::pool(&url, 2))
}

async fn send(router: &Router, method: &str, path: &str) -> (StatusCode, String, String) {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let allow = response.headers().get("allow");
    let allow = allow.map_or(String::new(), |allow| allow.to_str().unwrap().to_owned());
    let media_type = response.headers().get("content-type");
    if media_type.is_some_and(|own| own == "text/event-stream") {
        return (status, allow, String::new());
    }
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, allow, String::from_utf8_lossy(&body).into_owned())
}

/// The path with its parameters without names: those of the routes differ.
fn anonymous(path: &str) -> String {
    let mut parts = path.split('{');
    let mut anonymous = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        anonymous.push_str("{}");
        anonymous.push_str(part.split_once('}').unwrap().1);
    }
    anonymous
}

#[tokio::test]
async fn the_routes_and_the_document_have_the_same_operations() {
    let router = router().await;
    // The routes of a router can only be read from its debug output.
    let debug = format!("{router:?}");
    let paths: BTreeSet<&str> = debug
        .split('"')
        .filter(|text| text.starts_with("/v1/"))
        .collect();
    assert!(paths.len() > 20, "{debug}");
    let mut served = BTreeSet::new();
    for path in paths {
        let example = path.replace(['{', '}'], "");
        let (status, allow, _) = send(&router, "PROBE", &example).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        for method in allow.split(',').filter(|method| *method != "HEAD") {
            served.insert((method.to_lowercase(), anonymous(path)));
        }
    }
    let operations = api().operations;
    let documented: BTreeSet<(String, String)> = operations
        .iter()
        .map(|operation| (operation.method.to_owned(), anonymous(&operation.path)))
        .collect();
    assert_eq!(documented, served);
    assert_eq!(
        documented.len(),
        operations.len(),
        "an operation is described twice"
    );
    let ids: BTreeSet<&str> = operations.iter().map(|own| own.id.as_str()).collect();
    assert_eq!(
        ids.len(),
        operations.len(),
        "an operation id is not unique: {ids:?}"
    );
}

/// A value that a parameter may have.
fn value(parameter: &Parameter) -> String {
    let value = match parameter.accepts {
        _ if parameter.example.is_some() => parameter.example.unwrap(),
        Accepts::OneOf(names) | Accepts::ListOf(names) => names[0],
        Accepts::Uuid => "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e",
        Accepts::Boolean => "true",
        Accepts::Time => "2019-01-17",
        _ => "1",
    };
    value.replace(':', "%3A")
}

#[tokio::test]
async fn every_parameter_of_the_document_is_read_and_no_other_one() {
    let router = router().await;
    for operation in api().operations {
        let parameters: Vec<&Parameter> = operation
            .parameters
            .iter()
            .copied()
            .flatten()
            .copied()
            .flatten()
            .collect();
        let mut path = operation.path.clone();
        for parameter in parameters.iter().filter(|own| own.place == Place::Path) {
            path = path.replace(&format!("{{{}}}", parameter.name), &value(parameter));
        }
        let query: Vec<&&Parameter> = parameters
            .iter()
            .filter(|own| own.place == Place::Query)
            .collect();
        let required = query.iter().filter(|own| own.required);
        let required: Vec<String> = required
            .map(|own| format!("{}={}", own.name, value(own)))
            .collect();
        let method = operation.method.to_uppercase();
        for parameter in &query {
            let mut pairs = required.clone();
            pairs.retain(|pair| !pair.starts_with(&format!("{}=", parameter.name)));
            pairs.push(format!("{}={}", parameter.name, value(parameter)));
            let has = |name| pairs.iter().any(|pair: &String| pair.starts_with(name));
            if query.iter().any(|own| own.name == "component") && !has("device=") {
                // A parameter of subtrees is unknown without one.
                let other = if parameter.name == "topology" {
                    "component"
                } else {
                    "device"
                };
                let other = query.iter().find(|own| own.name == other).unwrap();
                if parameter.name != "component" {
                    pairs.push(format!("{}={}", other.name, value(other)));
                }
            }
            let uri = format!("{path}?{}", pairs.join("&"));
            let (status, _, body) = send(&router, &method, &uri).await;
            assert!(
                !body.contains("is not a parameter"),
                "{method} {uri}: {body}"
            );
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {uri}");
        }
        let uri = format!("{path}?{}&no_such_parameter=1", required.join("&"));
        let (_, _, body) = send(&router, &method, &uri).await;
        assert!(body.contains("bad_query"), "{method} {uri}: {body}");
    }
}

/// The values that a message of an error lists behind "use" or "one of".
fn listed(body: &str) -> BTreeSet<String> {
    let body: Value = serde_json::from_str(body).unwrap();
    let detail = body["detail"].as_str().unwrap();
    let list = detail
        .rsplit_once(" use ")
        .or(detail.rsplit_once(" one of "));
    let list = list
        .unwrap_or_else(|| panic!("{detail}"))
        .1
        .replace(" or ", ", ");
    list.split(", ").map(str::to_owned).collect()
}

#[tokio::test]
async fn the_names_and_the_bounds_of_parameters_are_those_that_are_accepted() {
    let router = router().await;
    let mut checked = 0;
    for operation in api().operations {
        let parameters: Vec<&Parameter> = operation
            .parameters
            .iter()
            .copied()
            .flatten()
            .copied()
            .flatten()
            .collect();
        let mut path = operation.path.clone();
        for parameter in parameters.iter().filter(|own| own.place == Place::Path) {
            path = path.replace(&format!("{{{}}}", parameter.name), &value(parameter));
        }
        let query = parameters.iter().filter(|own| own.place == Place::Query);
        for parameter in query.clone() {
            let name = parameter.name;
            let mut pairs: Vec<String> = query
                .clone()
                .filter(|own| own.required && own.name != name)
                .map(|own| format!("{}={}", own.name, value(own)))
                .collect();
            // Some are read for a component only, and the others for a device too.
            let selects = if name == "topology" {
                "component"
            } else {
                "device"
            };
            pairs.extend(
                query
                    .clone()
                    .filter(|own| own.name == selects && !own.required && own.name != name)
                    .map(|own| format!("{}={}", own.name, value(own))),
            );
            let uri = |text: &str| format!("{path}?{}&{name}={text}", pairs.join("&"));
            let method = operation.method.to_uppercase();
            match parameter.accepts {
                Accepts::OneOf(names) => {
                    let (_, _, body) = send(&router, &method, &uri("nonsense")).await;
                    let names: BTreeSet<String> = names.iter().map(|own| (*own).into()).collect();
                    assert_eq!(listed(&body), names, "{method} {path}: {body}");
                    checked += 1;
                }
                Accepts::Count(max) => {
                    let (_, _, body) = send(&router, &method, &uri(&(max + 1).to_string())).await;
                    let bound = format!("from 1 to {max}");
                    assert!(body.contains(&bound), "{method} {path}: {name}: {body}");
                    checked += 1;
                }
                _ => {}
            }
        }
    }
    assert!(checked > 30, "{checked}");
}

#[test]
fn every_field_of_the_model_and_every_property_is_described() {
    for definition in DEFINITIONS {
        for field in definition.fields {
            let description = super::fields::describe(definition.resource, field.name);
            assert!(
                !description.is_empty(),
                "{:?}: {}",
                definition.resource,
                field.name
            );
        }
    }
    fn check(schema: &Value, at: &str) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let at = format!("{at}/{name}");
            let is_described = ["description", "items", "properties", "enum"]
                .iter()
                .any(|member| property.get(member).is_some());
            assert!(
                is_described || property.get("anyOf").is_some(),
                "{at} has no description"
            );
            check(property, &at);
            check(&property["items"], &at);
        }
    }
    let document = service::openapi::document(&[api()]);
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        check(schema, name);
    }
    for (path, content) in contents(&document) {
        check(&content["schema"], &path);
    }
}

/// Every form of every body, with its place.
fn contents(document: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let mut stack = vec![(String::new(), document)];
    while let Some((at, value)) = stack.pop() {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let at = format!("{at}/{name}");
                    if name == "content" {
                        for (media_type, content) in member.as_object().into_iter().flatten() {
                            found.push((format!("{at}/{media_type}"), content.clone()));
                        }
                    }
                    stack.push((at, member));
                }
            }
            Value::Array(items) => {
                stack.extend(items.iter().map(|item| (at.clone(), item)));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn every_example_is_what_its_schema_describes() {
    let document = service::openapi::document(&[api()]);
    let mut count = 0;
    for (path, content) in contents(&document) {
        let mut schema = json!({ "components": document["components"] });
        schema["allOf"] = json!([content["schema"]]);
        let validator = jsonschema::options().offline().build(&schema).unwrap();
        let named = content["examples"].as_object().into_iter().flatten();
        let examples = named
            .map(|(_, example)| &example["value"])
            .chain(content.get("example"));
        for example in examples {
            let errors: Vec<String> = validator
                .iter_errors(example)
                .map(|error| error.to_string())
                .collect();
            assert!(errors.is_empty(), "{path}: {example}: {errors:?}");
            count += 1;
        }
    }
    assert!(count > 300, "{count} examples");
}
