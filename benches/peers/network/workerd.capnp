using Workerd = import "/workerd/workerd.capnp";

# The same counter twice, each behind a socket of its own: its storage in memory, and its storage on disk. Objects stay in
# memory, as our twins do while they are measured.
const config :Workerd.Config = (
  services = [
    (name = "memory", worker = .memory),
    (name = "disk", worker = .disk),
    (name = "files", disk = (writable = true)),
  ],
  sockets = [
    (name = "memory", http = (), service = "memory"),
    (name = "disk", http = (), service = "disk"),
  ],
);

const memory :Workerd.Worker = (
  modules = [(name = "workerd.mjs", esModule = embed "workerd.mjs")],
  compatibilityDate = "2026-11-01",
  durableObjectNamespaces = [
    (className = "Counter", uniqueKey = "counter-in-memory", preventEviction = true),
  ],
  durableObjectStorage = (inMemory = void),
  bindings = [(name = "counters", durableObjectNamespace = "Counter")],
);

const disk :Workerd.Worker = (
  modules = [(name = "workerd.mjs", esModule = embed "workerd.mjs")],
  compatibilityDate = "2026-11-01",
  durableObjectNamespaces = [
    (className = "Counter", uniqueKey = "counter-on-disk", enableSql = true, preventEviction = true),
  ],
  durableObjectStorage = (localDisk = "files"),
  bindings = [(name = "counters", durableObjectNamespace = "Counter")],
);
