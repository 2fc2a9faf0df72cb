// Package backend keeps sessions and leases on memcached servers. It implements sessfs.Backend.
//
// Each session lives on one server, chosen by weighted rendezvous hashing of the configured names (rendezvous.go), under
// a key made from its id (keys.go), as one item with a header of fixed size (record.go) or, over the server's item
// limit, as chunk items and a manifest (chunks.go). Its lock is an item beside it that ends by itself (lock.go).
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
// Order of locks: server.mu and conn.mu are never held together. Goroutines: a housekeeper per server and its attempts
// to connect, and one for each connection that waits for its end; Cluster.Close ends them all.
package backend
