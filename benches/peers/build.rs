//! Writes the client and the server of the gRPC service, as tonic's builder for services without `.proto` files does.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let method = |name: &str, route: &str, input: &str, output: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(input)
            .output_type(output)
            .codec_path("tonic_prost::ProstCodec")
    };
    let small = "crate::grpc::Small";
    let service = Service::builder()
        .name("Sink")
        .package("peers")
        .method(method("echo", "Echo", small, small).build())
        .method(
            method("push", "Push", small, "crate::grpc::Count")
                .client_streaming()
                .build(),
        )
        .build();
    Builder::new().compile(&[service]);
}
