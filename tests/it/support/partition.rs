//! A line to a server of this machine that can be cut and mended.

use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub struct Line {
    pub port: u16,
    /// Ends what goes over the line now; absent while it is cut.
    whole: Arc<Mutex<Option<CancellationToken>>>,
}

impl Line {
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let whole = Arc::new(Mutex::new(Some(CancellationToken::new())));
        let state = Arc::clone(&whole);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let Some(cut) = state.lock().expect("the line").clone() else { continue };
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        () = cut.cancelled() => {}
                    }
                });
            }
        });
        Self { port, whole }
    }

    pub fn cut(&self) {
        if let Some(whole) = self.whole.lock().expect("the line").take() {
            whole.cancel();
        }
    }

    pub fn mend(&self) {
        *self.whole.lock().expect("the line") = Some(CancellationToken::new());
    }
}
