use std::time::Duration;

use futures::future::BoxFuture;
use tokio::net::TcpStream;

use crate::event::{Failure, Outcome};

use super::{Action, Context, confirm::cancelled};

/// How long a connection may take when the step sets no limit.
const PATIENCE: Duration = Duration::from_secs(10);

/// `smoke.tcp`: something accepts connections at the address.
pub struct SmokeTcp {
    pub address: String,
}

impl Action for SmokeTcp {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let address = match context.expand_strictly(&self.address) {
                Ok(address) => address,
                Err(failure) => return Outcome::failed(failure),
            };
            if let Err(failure) = context.refuse_source(&address).await {
                return Outcome::failed(failure);
            }
            let began = context.clock.now().boot;
            let connected = tokio::select! {
                connected = TcpStream::connect(&address) => connected.map_err(|error| error.to_string()),
                () = context.clock.sleep(PATIENCE) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
                () = context.cancel.cancelled() => return cancelled(),
            };
            let took = context.clock.now().boot.saturating_sub(began).as_secs_f64() * 1e3;
            match connected {
                Ok(_) => Outcome::passed(format!("{address} accepts connections ({took:.1} ms)"))
                    .fact("milliseconds", took)
                    .check(format!("tcp {address}"), true, format!("accepted in {took:.1} ms")),
                Err(why) => Outcome::failed(
                    Failure::new(format!("{address} does not accept a connection"), why.clone())
                        .now("Is the service running, and does it listen where the runbook says?"),
                )
                .check(format!("tcp {address}"), false, why),
            }
        })
    }
}
