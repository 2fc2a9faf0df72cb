package metrics

import "github.com/prometheus/client_golang/prometheus"

// all are the descriptions of the metrics below.
var all []*prometheus.Desc

func describe(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("sessfs_"+name, help, labels, nil)
	all = append(all, d)
	return d
}

// The daemon.
var (
	buildInfo     = describe("build_info", "1; the labels tell what runs.", "version", "goversion")
	mounted       = describe("mounted", "Whether the session directory is mounted.")
	ready         = describe("ready", "Whether every session can be served: what /readyz says.")
	reloadOK      = describe("config_last_reload_successful", "Whether the configuration file was taken over when it was last read.")
	reloadTime    = describe("config_last_reload_success_timestamp_seconds", "When the configuration file was last taken over.")
	reloadPending = describe("config_pending_remount_keys", "Keys of the configuration file that wait for the next mount.")
)

// What PHP asks for.
var (
	requests        = describe("fuse_requests_total", "Requests of the kernel.", "operation")
	requestDuration = describe("fuse_request_duration_seconds", "Time from a request of the kernel to its answer, waits for locks included.", "operation")
	failures        = describe("operation_failures_total", "Operations that failed because of the cache servers or the lock; PHP was told.")
	lookupsWaited   = describe("lookups_waited_total", "LOOKUPs that waited for the network, with the directory's lock held on old kernels.")
	openHandles     = describe("open_handles", "Open file descriptions.")
	openSessions    = describe("open_sessions", "Sessions that are open.")
	nodes           = describe("nodes", "Names in the table of nodes.")
	stored          = describe("sessions_stored_total", "Sessions stored.")
	conflicts       = describe("store_conflicts_total", "Changes refused because somebody else had changed the session.")
	opensRefused    = describe("opens_refused_total", "Opens refused because a user, or all users together, had too many files open.")
	tooLarge        = describe("sessions_too_large_total", "Writes refused because the session would be over session.max_size.")
	lostChanges     = describe("lost_changes_total", "Changes left to close that could not be stored: PHP was not told.")
)

// Locks.
var (
	locksHeld   = describe("locks_held", "Locks that this host has and uses.")
	locksKept   = describe("locks_kept", "Locks that this host has and keeps for the next use (lock.keep).")
	lockWaiters = describe("lock_waiters", "Calls that wait for a lock.")
	lockWait    = describe("lock_wait_duration_seconds", "Waits for locks that are over, granted or not.")
	oldestHold  = describe("lock_oldest_hold_seconds", "How long the lock has been held that is held the longest now.")
	oldestWait  = describe("lock_oldest_wait_seconds", "How long the call has waited for a lock that waits the longest now.")
	locksLost   = describe("locks_lost_total", "Locks that ended under their holder, whose writes are refused then.")
)

// Copies.
var (
	roundTripsWaited = describe("round_trips_waited_total", "Round trips to cache servers that requests waited for.")
	replicas         = describe("replicas", "Copies that each session has.")
	lists            = describe("server_lists", "Lists of servers by which sessions are looked for: more than one after a change.")
	standIns         = describe("stand_ins_total", "Locks got with another server in the place of one that is down.")
	mended           = describe("copies_mended_total", "Copies stored where they were missing or older.")
	putBack          = describe("changes_put_back_total", "Refused changes that some servers had stored, and that were replaced there.")
	lostReads        = describe("lost_session_reads_total", "Reads of sessions of which no server has a whole copy any more.")
)

// Large sessions in memory.
var (
	cacheBytes   = describe("cache_bytes", "Memory of the large sessions that come back to this host.")
	cacheAnswers = describe("cache_answers_total", "Answers about large sessions in memory, by whether they are the last version.", "result")
)

// Seals.
var (
	sealKeys    = describe("seal_keys", "Keys that sessions are sealed and opened with; 0: they are not sealed.")
	sealPlain   = describe("seal_accepts_plain", "Whether sessions that are not sealed are read, too.")
	sealRefused = describe("seal_refusals_total", "Records of sessions that were refused because of their seal.", "reason")
)

// Cache servers.
var (
	serverInfo         = describe("server_info", "1; the labels tell what the server is.", "server", "address", "version", "protocol")
	serverUp           = describe("server_up", "Whether the server answers.", "server")
	serverBreaker      = describe("server_breaker_open", "Whether the server is marked down, so that requests to it fail at once.", "server")
	serverYoung        = describe("server_young", "Whether the server started a moment ago and does not count for locks yet.", "server")
	serverLeaving      = describe("server_leaving", "Whether the server is in no list of the configuration any more.", "server")
	serverMends        = describe("server_mends_left", "Sessions still to be looked at since the server came back; -1: not known yet.", "server")
	serverTrips        = describe("server_round_trips_total", "Round trips of this daemon to the server.", "server")
	serverTripDuration = describe("server_round_trip_duration_seconds", "Round trips of this daemon to the server that were waited for and answered.", "server")
	serverFailures     = describe("server_failures_total", "Requests of this daemon to which the server gave no usable answer.", "server")
	serverUptime       = describe("server_uptime_seconds", "How long the server runs.", "server")
	serverItems        = describe("server_items", "Items on the server, of all its users.", "server")
	serverMemory       = describe("server_memory_bytes", "Memory that items take on the server.", "server")
	serverMemoryLimit  = describe("server_memory_limit_bytes", "Memory that the server may use for items.", "server")
	serverItemMax      = describe("server_item_size_max_bytes", "Size of the largest item that the server takes.", "server")
	serverEvictions    = describe("server_evictions_total", "Items that the server threw away before their time.", "server")
	serverHits         = describe("server_hits_total", "Reads that found an item on the server, of all its users.", "server")
	serverMisses       = describe("server_misses_total", "Reads that found none.", "server")
	serverConnections  = describe("server_connections", "Connections to the server, of all its users.", "server")
)
