//! The table of contents.

use crate::error::ApiError;
use crate::route::{account, auth, notice, object, objects, pull, server, session, usage, vault};
use crate::state::App;
use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use lockstep_proto::api::problem::Code;
use std::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;

/// All routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/healthz", get(server::health))
        .route("/readyz", get(server::ready))
        .route("/v1/server", get(server::info))
        .route("/v1/register/start", post(auth::register_start))
        .route("/v1/register/finish", post(auth::register_finish))
        .route("/v1/login/start", post(auth::login_start))
        .route("/v1/login/finish", post(auth::login_finish))
        .route("/v1/recovery/start", post(auth::recovery_start))
        .route("/v1/recovery/finish", post(auth::recovery_finish))
        .route("/v1/device-login/start", post(auth::device_login_start))
        .route("/v1/device-login/finish", post(auth::device_login_finish))
        .route("/v1/session", get(auth::session).delete(auth::sign_out))
        .route("/v1/account/opaque", post(auth::opaque_start))
        .route("/v1/account/devices", get(account::devices).post(account::enrol))
        .route("/v1/account/devices/revoke", post(account::revoke))
        .route("/v1/account/recover", post(account::recover))
        .route("/v1/account/credentials", post(account::credentials))
        .route("/v1/account/delete", post(account::delete))
        .route("/v1/heal/devices", post(account::heal))
        .route("/v1/account/usage", get(usage::usage))
        .route("/v1/account/sessions", get(session::list))
        .route("/v1/account/sessions/{session}", delete(session::revoke))
        .route("/v1/events", get(notice::events))
        .route("/v1/events/wait", post(notice::wait))
        .route("/v1/vaults", get(vault::list).post(vault::create))
        .route("/v1/vaults/{vault}/delete", post(account::delete_vault))
        .route("/v1/vaults/{vault}/log", get(vault::log))
        .route("/v1/vaults/{vault}/envelopes", post(vault::stage))
        .route("/v1/vaults/{vault}/envelopes/get", post(pull::envelopes))
        .route("/v1/vaults/{vault}/commits", get(pull::commits).post(vault::push))
        .route("/v1/vaults/{vault}/state", get(pull::state))
        .route("/v1/vaults/{vault}/records/{record}/history", get(pull::history))
        .route("/v1/vaults/{vault}/objects", post(object::framed))
        .route("/v1/vaults/{vault}/objects/missing", post(object::missing))
        .route("/v1/vaults/{vault}/objects/get", post(objects::get))
        .route("/v1/vaults/{vault}/objects/{blob}", get(object::get))
        .route("/v1/vaults/{vault}/uploads", post(object::begin))
        .route("/v1/vaults/{vault}/uploads/{blob}/parts/{index}", put(object::put_part))
        .route("/v1/vaults/{vault}/uploads/{blob}/complete", post(object::complete))
        .fallback(|| async { ApiError::new(Code::NotFound, "there is no such route") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(Code::MethodNotAllowed, "this route knows no such method")
        })
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            ApiError::new(Code::Internal, "the server failed; its log says more").into_response()
        }))
        .layer(middleware::from_fn_with_state(app.clone(), crate::cors::cors))
        .layer(middleware::from_fn(log_request))
        .with_state(app)
}

/// One line a request: method, route pattern (never the path, the query, a body or a token), status, time.
async fn log_request(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let begin = Instant::now();
    let response = next.run(request).await;
    tracing::info!(
        %method,
        route = route.as_deref().unwrap_or("none"),
        status = response.status().as_u16(),
        micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX),
        "request"
    );
    response
}
