//! The admin API without a program in between: for many changes, and for what the program would not send.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;

use hyper_util::rt::TokioIo;
use mc_api::mcproxy as api;
use mc_api::mcproxy::admin_client::AdminClient;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};

/// A client that waits for each answer.
pub(crate) struct Grpc {
    runtime: tokio::runtime::Runtime,
    client: AdminClient<Channel>,
}

impl Grpc {
    /// Connects to an admin socket.
    pub(crate) fn connect(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://admin");
        let channel = runtime.block_on(endpoint.connect_with_connector(connector)).unwrap();
        Self { runtime, client: AdminClient::new(channel) }
    }

    /// Makes a call and waits for its answer.
    pub(crate) fn call<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        call: impl FnOnce(AdminClient<Channel>) -> F,
    ) -> Result<T, Status> {
        self.runtime.block_on(call(self.client.clone())).map(Response::into_inner)
    }

    /// Adds a route.
    pub(crate) fn add_route(&self, route: api::Route) -> Result<api::RouteChange, Status> {
        let request = api::AddRouteRequest { route: Some(route), ..Default::default() };
        self.call(|mut client| async move { client.add_route(request).await })
    }

    /// Removes a route.
    pub(crate) fn remove_route(&self, name: &str, kill: bool) -> Result<api::RemoveRouteResponse, Status> {
        let key = api::RouteKey { listener: "web".into(), name: name.into(), alpn: String::new() };
        let request =
            api::RemoveRouteRequest { key: Some(key), connections: i32::from(kill), ..Default::default() };
        self.call(|mut client| async move { client.remove_route(request).await })
    }

    /// The names of all routes.
    pub(crate) fn route_names(&self) -> Vec<String> {
        let mut client = self.client.clone();
        self.runtime.block_on(async move {
            let mut stream =
                client.list_routes(api::ListRoutesRequest::default()).await.unwrap().into_inner();
            let mut names = Vec::new();
            while let Some(route) = stream.message().await.unwrap() {
                names.push(route.name);
            }
            names
        })
    }

    /// What runs.
    pub(crate) fn status(&self) -> api::Status {
        self.call(|mut client| async move { client.get_status(api::GetStatusRequest {}).await }).unwrap()
    }

    /// The revision that runs.
    pub(crate) fn revision(&self) -> u64 {
        self.status().revision
    }

    /// What is known of a backend.
    pub(crate) fn backend(&self, address: SocketAddr) -> api::BackendState {
        let found = self.backends().into_iter().find(|backend| backend.address == address.to_string());
        found.unwrap_or_else(|| panic!("{address} is no backend"))
    }

    /// What is known of all backends.
    pub(crate) fn backends(&self) -> Vec<api::BackendState> {
        let request = api::ListBackendsRequest {};
        self.call(|mut client| async move { client.list_backends(request).await }).unwrap().backends
    }

    /// Lets a backend drain, or takes it back.
    pub(crate) fn drain(&self, address: SocketAddr, drain: bool) {
        let request = api::DrainBackendRequest { address: address.to_string(), drain, kill: false };
        self.call(|mut client| async move { client.drain_backend(request).await }).unwrap();
    }

    /// All live connections.
    pub(crate) fn connections(&self) -> Vec<api::Connection> {
        let mut client = self.client.clone();
        self.runtime.block_on(async move {
            let request = api::ListConnectionsRequest::default();
            let mut stream = client.list_connections(request).await.unwrap().into_inner();
            let mut connections = Vec::new();
            while let Some(connection) = stream.message().await.unwrap() {
                connections.push(connection);
            }
            connections
        })
    }
}

/// A route of the listener `web`.
pub(crate) fn route(name: &str, backend: &str) -> api::Route {
    api::Route {
        listener: "web".into(),
        name: name.into(),
        backends: vec![api::Backend { address: backend.into(), ..Default::default() }],
        ..Default::default()
    }
}
