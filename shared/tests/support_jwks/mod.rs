//! An issuer that publishes keys, or gets it wrong.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;

/// Longest request that is read, in bytes.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

#[derive(Debug, Clone)]
pub enum Answer {
    Body(String),
    Status(u16),
    /// To the same server.
    Redirect,
    /// A body that never ends.
    Endless,
    /// Nothing at all.
    Silence,
}

impl Answer {
    #[expect(clippy::needless_pass_by_value, reason = "tests hand over lists that they make on the spot")]
    pub fn keys(keys: Vec<Value>) -> Self {
        Self::Body(json!({ "keys": keys }).to_string())
    }
}

pub struct Server {
    state: Arc<State>,
    port: u16,
    _task: AbortOnDropHandle<()>,
}

struct State {
    answer: Mutex<Answer>,
    requests: AtomicUsize,
    redirected: AtomicUsize,
}

impl Server {
    pub async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            answer: Mutex::new(answer),
            requests: AtomicUsize::new(0),
            redirected: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                // A client that goes away is no news.
                connections.spawn(async move { drop(serve(&state, stream).await) });
            }
        });
        Self { state, port, _task: AbortOnDropHandle::new(task) }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/keys", self.port)
    }

    pub fn answer(&self, answer: Answer) {
        *self.state.answer.lock().unwrap() = answer;
    }

    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    pub fn redirected(&self) -> usize {
        self.state.redirected.load(Ordering::SeqCst)
    }
}

/// One answer for each connection.
async fn serve(state: &State, mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        request.push(stream.read_u8().await?);
    }
    if request.starts_with(b"GET /elsewhere") {
        state.redirected.fetch_add(1, Ordering::SeqCst);
    } else {
        state.requests.fetch_add(1, Ordering::SeqCst);
    }
    let answer = state.answer.lock().unwrap().clone();
    let head = |status: u16, more: String| format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{more}\r\n");
    match answer {
        Answer::Body(body) => {
            let text = head(200, format!("content-length: {}\r\n", body.len())) + &body;
            stream.write_all(text.as_bytes()).await
        }
        Answer::Status(status) => {
            stream.write_all(head(status, "content-length: 0\r\n".to_owned()).as_bytes()).await
        }
        Answer::Redirect => {
            let more = "location: /elsewhere\r\ncontent-length: 0\r\n".to_owned();
            stream.write_all(head(302, more).as_bytes()).await
        }
        Answer::Endless => {
            stream.write_all(head(200, String::new()).as_bytes()).await?;
            loop {
                stream.write_all(&[b' '; 4096]).await?;
            }
        }
        Answer::Silence => std::future::pending().await,
    }
}
