//! The shop's doors.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::backends::{BackendError, Backends};
use super::shop::{NewOrder, OrderError, Shop};
use super::traffic::refused;

/// For an answer to `/health`.
const PATIENCE: Duration = Duration::from_secs(3);

pub fn router(shop: Arc<Shop>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/orders", post(place))
        .route("/orders/{id}", get(order))
        .route("/stats", get(stats))
        .route("/reload", post(reload))
        .with_state(shop)
}

type Answer = (StatusCode, Json<Value>);

fn unavailable(error: &dyn std::fmt::Display) -> Answer {
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": error.to_string() })))
}

/// 200 when both databases answer and orders can be written; else 503 with the reason.
async fn health(State(shop): State<Arc<Shop>>) -> Answer {
    let look = async {
        let backends = shop.backends().await?;
        let writable = writable(&backends).await?;
        backends.cache.ping().await?;
        let status = if writable { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut body = json!({
            "database": backends.database,
            "cache": backends.cache.address(),
            "writable": writable,
        });
        if !writable {
            body["error"] = "the database takes no writes".into();
        }
        Ok::<_, BackendError>((status, Json(body)))
    };
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => unavailable(&error),
        Err(_) => unavailable(&format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

async fn writable(backends: &Backends) -> Result<bool, BackendError> {
    let sql = |source| BackendError::Sql { operation: "the look at the database", source };
    let query = "select not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off'";
    backends.reader.query_one(query, &[]).await.and_then(|row| row.try_get(0)).map_err(sql)
}

async fn place(State(shop): State<Arc<Shop>>, Json(order): Json<NewOrder>) -> Answer {
    match shop.place(&order).await {
        Ok(entry) => {
            let body = json!({
                "id": entry.id,
                "customer": entry.customer,
                "item": entry.item,
                "amount": entry.amount,
                "committed_at": entry.committed_at,
            });
            (StatusCode::CREATED, Json(body))
        }
        Err(error) => {
            refused(&shop, &error);
            match error {
                OrderError::Refused { why, wrong: true } => {
                    (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": why })))
                }
                error => unavailable(&error),
            }
        }
    }
}

async fn order(State(shop): State<Arc<Shop>>, Path(id): Path<i64>) -> Response {
    let look = async {
        let sql = |source| BackendError::Sql { operation: "reading the order", source };
        let backends = shop.backends().await?;
        let query = "select customer_id, note, total_cents, status, created_at from orders where id = $1";
        let Some(row) = backends.reader.query_opt(query, &[&id]).await.map_err(sql)? else { return Ok(None) };
        Ok::<_, BackendError>(Some(json!({
            "id": id,
            "customer": row.try_get::<_, i64>(0).map_err(sql)?,
            "item": row.try_get::<_, String>(1).map_err(sql)?,
            "amount": row.try_get::<_, i64>(2).map_err(sql)?,
            "status": row.try_get::<_, String>(3).map_err(sql)?,
            "created_at": row.try_get::<_, DateTime<Utc>>(4).map_err(sql)?,
        })))
    };
    match look.await {
        Ok(Some(body)) => Json(body).into_response(),
        Ok(None) => {
            (StatusCode::NOT_FOUND, Json(json!({ "error": format!("there is no order {id}") }))).into_response()
        }
        Err(error) => unavailable(&error).into_response(),
    }
}

async fn stats(State(shop): State<Arc<Shop>>) -> Response {
    Json(shop.stats()).into_response()
}

async fn reload(State(shop): State<Arc<Shop>>) -> Answer {
    match shop.reload().await {
        Ok(backends) => {
            let body = json!({ "database": backends.database, "cache": backends.cache.address() });
            (StatusCode::OK, Json(body))
        }
        Err(error) => unavailable(&error),
    }
}
