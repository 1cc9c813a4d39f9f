package main

// The harness's commands, read from stdin and answered on stdout. Always true: stdout carries answers and nothing else;
// a job counts as finished only when River's table says so, which is looked up each 10 ms once the last handler has run.

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	lookAgain  = 10 * time.Millisecond
	warmUpJobs = 3
)

type command struct {
	Do      string  `json:"do"`
	Jobs    int     `json:"jobs"`
	Batch   int     `json:"batch"`
	Tasks   int     `json:"tasks"`
	EveryMs float64 `json:"every_ms"`
}

type answer map[string]any

func say(event string, facts answer) {
	if facts == nil {
		facts = answer{}
	}
	facts["event"] = event
	line, err := json.Marshal(facts)
	must(err)
	fmt.Println(string(line))
}

// serve answers the harness's commands until its end of stdin.
func serve(peer *riverPeer) {
	say("ready", nil)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		asked := command{Batch: 1, Tasks: 16, EveryMs: 50}
		must(json.Unmarshal(lines.Bytes(), &asked))
		switch asked.Do {
		case "setup":
			peer.setup()
			say("done", nil)
		case "publish":
			say("done", publishAll(peer, asked))
		case "work":
			say("done", work(peer, asked.Jobs))
		case "latency":
			say("done", measureLatency(peer, asked))
		default:
			panic("the harness asks for " + asked.Do + ", which this driver does not know")
		}
	}
}

// publishAll publishes from so many callers at once, each waiting for its answer before its next call.
func publishAll(peer *riverPeer, asked command) answer {
	peer.openPublisher()
	var next atomic.Int64
	var callers sync.WaitGroup
	began := time.Now().UnixNano()
	for range asked.Tasks {
		callers.Go(func() {
			for {
				start := int(next.Add(int64(asked.Batch))) - asked.Batch
				if start >= asked.Jobs {
					return
				}
				jobs := make([]benchJob, 0, asked.Batch)
				for number := start; number < min(start+asked.Batch, asked.Jobs); number++ {
					jobs = append(jobs, makeJob(number))
				}
				peer.publish(jobs)
			}
		})
	}
	callers.Wait()
	ended := time.Now().UnixNano()
	calls := (asked.Jobs + asked.Batch - 1) / asked.Batch
	return answer{"began": began, "ended": ended, "jobs": asked.Jobs, "calls": calls}
}

func work(peer *riverPeer, jobs int) answer {
	var handled, began atomic.Int64
	allHandled := make(chan struct{})
	peer.remaining() // so that the first look at the end does not have to plan
	peer.startWorker(func(benchJob) {
		switch handled.Add(1) {
		case 1:
			began.Store(time.Now().UnixNano())
			if jobs == 1 {
				close(allHandled)
			}
		case int64(jobs):
			close(allHandled)
		}
	})
	say("working", nil)
	<-allHandled
	ended := whenDurable(peer)
	peer.stopWorker()
	return answer{"began": began.Load(), "ended": ended, "jobs": jobs}
}

// measureLatency publishes a job each EveryMs, give or take half, so that none falls in step with what polls.
func measureLatency(peer *riverPeer, asked command) answer {
	arrived := make(chan float64, asked.Jobs+warmUpJobs)
	peer.openPublisher()
	peer.startWorker(func(job benchJob) {
		arrived <- float64(time.Now().UnixNano()-job.Sent) / 1000
	})
	for number := range warmUpJobs {
		peer.publish([]benchJob{makeJob(number)})
		<-arrived
	}
	for number := range asked.Jobs {
		time.Sleep(time.Duration(asked.EveryMs * (0.5 + mathrand.Float64()) * float64(time.Millisecond)))
		peer.publish([]benchJob{makeJob(number)})
	}
	latencies := make([]float64, 0, asked.Jobs)
	for range asked.Jobs {
		latencies = append(latencies, <-arrived)
	}
	whenDurable(peer)
	peer.stopWorker()
	return answer{"latencies_us": latencies}
}

// whenDurable waits until no job is left; it returns when the look that found none began, which is when it was true.
func whenDurable(peer *riverPeer) int64 {
	for {
		began := time.Now().UnixNano()
		if peer.remaining() == 0 {
			return began
		}
		time.Sleep(lookAgain)
	}
}

var (
	noise        = makeNoise()
	payloadBytes = readPayloadBytes()
)

func makeNoise() string {
	bytes := make([]byte, 4096)
	_, err := rand.Read(bytes)
	must(err)
	return hex.EncodeToString(bytes)
}

func readPayloadBytes() int {
	if size, err := strconv.Atoi(os.Getenv("BENCH_PAYLOAD_BYTES")); err == nil {
		return size
	}
	return 200
}

func makeJob(number int) benchJob {
	job := benchJob{Job: number, Sent: time.Now().UnixNano()}
	// 45 bytes are the JSON around the text: names, quotes, and the 19 digits of the time.
	length := payloadBytes - 45 - len(strconv.Itoa(number))
	start := number % (len(noise) - payloadBytes)
	job.Text = noise[start : start+max(length, 0)]
	return job
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
