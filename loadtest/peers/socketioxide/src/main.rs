//! The same chat as `../node/server.mjs`, on socketioxide: `PORT`.

use serde_json::{Value, json};
use socketioxide::{
    SocketIo,
    extract::{AckSender, Data, SocketRef},
};

#[tokio::main]
async fn main() {
    let (layer, io) = SocketIo::new_layer();
    io.ns("/", async |socket: SocketRef| {
        socket.on("join_conversation", async |socket: SocketRef, Data(asked): Data<Value>, ack: AckSender| {
            socket.join(room(&asked));
            let _ = ack.send(&json!({ "ok": true }));
        });
        socket.on(
            "send_message",
            async |io: SocketIo, Data(asked): Data<Value>, ack: AckSender| {
                let message = json!({ "conversationId": asked["conversationId"], "content": asked["content"] });
                let _ = io.to(room(&asked)).emit("new_message", &message).await;
                let _ = ack.send(&json!({ "ok": true }));
            },
        );
    });
    let port = std::env::var("PORT").expect("PORT is set");
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await.expect("PORT is free");
    axum::serve(listener, axum::Router::new().layer(layer)).await.expect("the server goes on");
}

fn room(asked: &Value) -> String {
    asked["conversationId"].as_str().unwrap_or_default().to_owned()
}
