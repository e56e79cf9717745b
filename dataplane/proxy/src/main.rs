//! stub
use mc_proxy::snapshot::*;
use mc_proxy::*;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
#[global_allocator]
static A: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let snap = Arc::new(arc_swap::ArcSwap::from_pointee(Snapshot::empty()));
    let policy = Arc::new(workers::SharedPolicy {
        rates: mc_core::rate::RateTable::new(1),
        on_refused: Box::new(|r| eprintln!("{r:?}")),
        on_ejected: Box::new(|_| {}),
    });
    let w = workers::Workers::start(1, snap.clone(), policy, &access_log::LogSink::off(), None).unwrap();
    let spec: mc_core::model::Listener = toml::from_str(&format!("name='web'\naddress='{}'", a[1])).unwrap();
    let route: mc_core::model::Route =
        toml::from_str(&format!("listener='web'\nname='*'\nbackends=[{{address='{}'}}]", a[2])).unwrap();
    let bound = w.bind(spec.address).unwrap();
    let entry = Arc::new(ListenerEntry { id: 1, spec, accepted: AtomicU64::new(0) });
    let mut s = Snapshot::empty();
    s.listeners.push(entry.clone());
    let backends =
        route.backends.iter().map(|b| Arc::new(mc_core::backend::BackendLive::new(b.address))).collect();
    let live = Arc::new(stats::RouteLive::new(route.key()));
    s.routes.insert(1, "*", "", false, Arc::new(RouteEntry { spec: route, backends, live }));
    snap.store(Arc::new(s));
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(w.open(entry, bound));
    loop {
        std::thread::park();
    }
}
