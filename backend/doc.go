// Package backend keeps sessions and leases on memcached servers. It implements sessfs.Backend.
//
// Each session lives on some servers, its set, chosen by weighted rendezvous hashing of the configured names (rendezvous.go,
// view.go), under a key made from its id (keys.go), as one item with a header (record.go) or, over the server's item
// limit, as chunk items and a manifest (chunks.go). Its lock is an item beside it that ends by itself (lock.go). What
// keeps the copies one session is in docs/replicas.md, and here in ask.go (all members are asked, others stand in for
// those that fail, the best record counts), acquire.go and copy.go (the lock, mending), commit.go and settle.go,
// renew.go, destroy.go, mender.go (a server that came back) and learn.go with lists.go (the list of servers changes).
//
// The hot path speaks memcached's meta commands over pipelined connections that the daemon's event loops serve (batch.go,
// conn.go, answers.go, meta.go; package loop). What a
// server can do is found out by doing it at connection (probe.go); one without meta commands gets the classic ones
// through gomemcache (classic.go). A server that does not answer is marked down and asked again in the background
// (server.go), so that it costs requests one timeout, not one each.
//
// Sessions and locks are stored with the classic add and cas, pipelined: a refused meta set (too large, out of memory)
// deletes what was there, a refused add or cas keeps it.
//
// Order of locks: Cluster.known.mu, then server.mu; server.mu and conn.mu are never held together, hold.mu and rebalance.mu
// with no other. Goroutines: the mender and the one that learns of lists, a housekeeper per server and its attempts to
// connect, and one for each connection that waits for its end; Cluster.Close ends them all.
package backend
