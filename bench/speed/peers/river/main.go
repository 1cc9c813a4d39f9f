// Drives River. At `defaults` as its README has it: 100 workers, everything else left alone, pgx's own pool size. At
// `best`: more workers that fetch again at once. Several jobs go through InsertManyFast (COPY) at both.
package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

type benchJob struct {
	Job  int    `json:"job"`
	Sent int64  `json:"sent"`
	Text string `json:"text"`
}

func (benchJob) Kind() string { return "bench" }

type benchWorker struct {
	river.WorkerDefaults[benchJob]
	handle func(benchJob)
}

func (worker *benchWorker) Work(_ context.Context, job *river.Job[benchJob]) error {
	worker.handle(job.Args)
	return nil
}

type riverPeer struct {
	pool      *pgxpool.Pool
	lookup    *pgx.Conn
	publisher *river.Client[pgx.Tx]
	worker    *river.Client[pgx.Tx]
}

var (
	background = context.Background()
	atBest     = os.Getenv("BENCH_SETTINGS") == "best"
	// The log's default place is stdout, where the harness reads answers.
	logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
)

func main() {
	config, err := pgxpool.ParseConfig(os.Getenv("BENCH_TARGET"))
	must(err)
	if atBest {
		config.MaxConns = 16
	}
	pool, err := pgxpool.NewWithConfig(background, config)
	must(err)
	must(pool.Ping(background))
	defer pool.Close()
	lookup, err := pgx.ConnectConfig(background, config.ConnConfig)
	must(err)
	defer lookup.Close(background)
	serve(&riverPeer{pool: pool, lookup: lookup})
}

func baseConfig() *river.Config {
	config := &river.Config{Logger: logger}
	if atBest {
		// Of a worker, how soon it fetches again; of a publisher, how often it notifies.
		config.FetchCooldown = time.Millisecond
	}
	return config
}

func (peer *riverPeer) setup() {
	migrator, err := rivermigrate.New(riverpgxv5.New(peer.pool), &rivermigrate.Config{Logger: logger})
	must(err)
	_, err = migrator.Migrate(background, rivermigrate.DirectionUp, nil)
	must(err)
}

func (peer *riverPeer) openPublisher() {
	client, err := river.NewClient(riverpgxv5.New(peer.pool), baseConfig())
	must(err)
	peer.publisher = client
}

// publish inserts the jobs by one call, which returns when they are committed.
func (peer *riverPeer) publish(jobs []benchJob) {
	if len(jobs) == 1 {
		_, err := peer.publisher.Insert(background, jobs[0], nil)
		must(err)
		return
	}
	params := make([]river.InsertManyParams, len(jobs))
	for index, job := range jobs {
		params[index].Args = job
	}
	_, err := peer.publisher.InsertManyFast(background, params)
	must(err)
}

func (peer *riverPeer) startWorker(handle func(benchJob)) {
	workers := river.NewWorkers()
	river.AddWorker(workers, &benchWorker{handle: handle})
	config := baseConfig()
	config.Workers = workers
	config.Queues = map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 100}}
	if atBest {
		config.Queues = map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 1000}}
	}
	client, err := river.NewClient(riverpgxv5.New(peer.pool), config)
	must(err)
	must(client.Start(background))
	peer.worker = client
}

func (peer *riverPeer) stopWorker() {
	must(peer.worker.Stop(background))
}

func (peer *riverPeer) remaining() int {
	var jobs int
	must(peer.lookup.QueryRow(background, "SELECT count(*) FROM river_job WHERE finalized_at IS NULL").Scan(&jobs))
	return jobs
}
