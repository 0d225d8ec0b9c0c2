use lambda_runtime::{run, service_fn, Error, LambdaEvent};
use serde_json::{json, Value};

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    println!("asked for {}", event.payload);
    if event.payload == "fail" {
        return Err("no good".into());
    }
    if event.payload == "exit" {
        std::process::exit(3);
    }
    Ok(json!({"event": event.payload, "id": event.context.request_id}))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(handle)).await
}
