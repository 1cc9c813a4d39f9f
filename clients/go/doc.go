// Package jobwire publishes jobs to Jobwire, waits for them, and works on them.
//
// A [Client] publishes; a [Worker] runs handlers on the jobs of their queues, and keeps them through broken connections and
// restarts of the server. Results and options are the messages of the contract, package jobwire/v1, whose comments say what
// every field means and by which rules. Calls that fail return an [*Error].
//
// Jobs run at least once: after a lost connection a job may run again, so handlers are idempotent.
package jobwire
