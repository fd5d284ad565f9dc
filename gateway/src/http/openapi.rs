//! `/v1`: its routes, and the document at `/openapi.json`, both made of the same list.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use utoipa::{
    OpenApi,
    openapi::{
        OpenApi as Document, SecurityRequirement,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    BATCH_BYTES_MAX, Routes, changes, conversations, members, messages, problem::ProblemBody, publish,
    receipts, revocations, signals, users,
};

/// The name of the one way to say who asks.
const BEARER: &str = "bearer";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Starling",
        description = "Conversations over HTTP. Users show a token; application servers show an API key, as \
                       `Authorization: Bearer sk_…`. Errors are problems as in RFC 9457; programs compare their `code`.",
    ),
    components(schemas(ProblemBody)),
    tags(
        (name = "Conversations", description = "Make and list them."),
        (name = "Members", description = "Who is in a conversation."),
        (name = "Messages", description = "Send, and read back."),
        (name = "Users", description = "Who is online, and one's own devices."),
        (name = "Server", description = "For application servers with an API key."),
    ),
)]
struct Head;

/// The routes under `/v1`, and the document that describes them.
fn parts() -> (Router<Routes>, Document) {
    let batches = OpenApiRouter::new()
        .routes(routes!(publish::batch))
        .routes(routes!(publish::broadcast))
        .layer(DefaultBodyLimit::max(BATCH_BYTES_MAX));
    let (router, mut document) = OpenApiRouter::with_openapi(Head::openapi())
        .routes(routes!(conversations::create, conversations::list))
        .routes(routes!(conversations::show, conversations::rename))
        .routes(routes!(members::list, members::add))
        .routes(routes!(members::remove, members::set_role))
        .routes(routes!(members::leave))
        .routes(routes!(members::mute, members::unmute))
        .routes(routes!(members::ban, members::unban))
        .routes(routes!(changes::edit, changes::delete))
        .routes(routes!(changes::react, changes::unreact))
        .routes(routes!(receipts::list))
        .routes(routes!(receipts::read))
        .routes(routes!(receipts::delivered))
        .routes(routes!(messages::read, messages::send))
        .routes(routes!(conversations::list_of_user))
        .routes(routes!(publish::to_user))
        .routes(routes!(publish::to_role))
        .routes(routes!(signals::signal))
        .routes(routes!(signals::typing))
        .routes(routes!(users::presence))
        .routes(routes!(users::own_connections))
        .routes(routes!(users::connections))
        .routes(routes!(users::disconnect))
        .routes(routes!(revocations::revoke))
        .merge(batches)
        .split_for_parts();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new(BEARER, Vec::<String>::new())]);
    (router, document)
}

/// The routes under `/v1`, with `/openapi.json`.
pub fn router() -> Router<Routes> {
    let (router, document) = parts();
    let json: axum::body::Bytes = document.to_json().expect("a document is plain data").into();
    router.route("/openapi.json", get(move || std::future::ready(serve(json.clone()))))
}

fn serve(json: axum::body::Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_in_the_document() {
        // All routes of the list are in the document, since both are made of it; so none may be made beside the list.
        let plain = include_str!("mod.rs");
        assert!(plain.contains(".route(\"/chat\"") && !plain.contains("\"/v1"));
        let (_, document) = parts();
        let paths: Vec<&String> = document.paths.paths.keys().collect();
        assert!(paths.iter().all(|path| path.starts_with("/v1/")), "{paths:?}");
        assert_eq!(paths.len(), 25, "{paths:?}");
    }

    #[test]
    fn every_operation_says_what_it_is_and_which_problems_it_has() {
        let document = serde_json::to_value(parts().1).unwrap();
        let mut ids = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let what = format!("{method} {path}");
                assert!(operation["summary"].is_string(), "{what}");
                assert!(ids.insert(operation["operationId"].to_string()), "{what}");
                for status in ["400", "401", "403", "503"] {
                    assert!(operation["responses"][status].is_object(), "{what}: {status}");
                }
            }
        }
        assert!(ids.len() >= 10);
    }
}
