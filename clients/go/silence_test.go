package jobwire

// What a worker does when its peer is gone without a word: no FIN, no RST, and nothing that answers any more.

import (
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// network stands between a worker and the server, and can forget connections.
type network struct {
	net.Listener
	upstream string
	// How many connections there have been, and how many of them the worker has closed.
	connections, closed atomic.Int32

	mu    sync.Mutex
	links []*link
}

// link is one connection.
type link struct {
	ends      [2]net.Conn
	forgotten atomic.Bool
}

func networkBefore(t *testing.T, server *scripted) *network {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{Listener: listener, upstream: server.address}
	go n.accept()
	t.Cleanup(func() {
		_ = n.Close()
		for _, each := range n.links {
			_, _ = each.ends[0].Close(), each.ends[1].Close()
		}
	})
	return n
}

func (n *network) accept() {
	for {
		worker, err := n.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", n.upstream)
		if err != nil {
			_ = worker.Close()
			continue
		}
		link := &link{ends: [2]net.Conn{worker, server}}
		n.mu.Lock()
		n.links = append(n.links, link)
		n.mu.Unlock()
		n.connections.Add(1)
		go func() {
			link.pass(worker, server)
			n.closed.Add(1)
		}()
		go link.pass(server, worker)
	}
}

// pass hands on what comes, and the end, as long as the link is not forgotten.
func (l *link) pass(from io.Reader, to net.Conn) {
	piece := make([]byte, 64<<10)
	for {
		size, err := from.Read(piece)
		if l.forgotten.Load() {
			if err != nil {
				return
			}
			continue
		}
		if err == nil {
			_, err = to.Write(piece[:size])
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

// forget: present connections stay open, but their ends never hear of each other again. New ones are not touched.
func (n *network) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, each := range n.links {
		each.forgotten.Store(true)
	}
}

func throughNetwork(t *testing.T, queues ...string) (*stage, *network) {
	t.Helper()
	t.Parallel()
	server := scriptedServer(t)
	n := networkBefore(t, server)
	return stageAt(t, server, n.Addr().String(), queues...), n
}

func TestHandlersNoticeNothingOfAPeerThatVanished(t *testing.T) {
	stage, network := throughNetwork(t, "work")
	stream := receive(t, stage.streams)
	stream.openWith(t, "s", 4*time.Second, nil)
	stream.deliver(t, 1, "a", "b")
	receive(t, stage.started)
	receive(t, stage.started)
	network.forget()
	stage.end("a", 1)
	resumed := receive(t, stage.streams)
	// The Ack of the other one may have come before it, over the new connection.
	if resume := resumed.request.Resume; resume.GetSessionId() != "s" || !slices.Contains(resume.GetHeld(), "b") {
		t.Errorf("%v", resumed.request)
	}
	if stream.Context().Err() != nil {
		t.Fatal("the server was told, so this test tries nothing")
	}
	resumed.open(t, "s")
	if item := stage.settled(t, "a"); item.GetComplete() == nil {
		t.Errorf("%v", item)
	}
	stage.end("b", 2)
	if item := stage.settled(t, "b"); item.GetComplete() == nil {
		t.Errorf("%v", item)
	}
	if made := network.connections.Load(); made != 2 {
		t.Errorf("%d connections", made)
	}
}

func TestAllSessionsOfAWorkerGoOverToOneNewConnection(t *testing.T) {
	stage, network := throughNetwork(t, "first", "second")
	// Only one of them falls silent; the other resumes since it shares the connection.
	for session, heartbeat := range map[string]time.Duration{"silent": 4 * time.Second, "patient": time.Hour} {
		stream := receive(t, stage.streams)
		stream.openWith(t, session, heartbeat, nil)
		stream.deliver(t, 1, "job of "+session)
		receive(t, stage.started)
	}
	for range 2 {
		resumed := receive(t, stage.streams)
		session := resumed.request.Resume.GetSessionId()
		resumed.open(t, session)
		stage.end("job of "+session, 1)
		if item := stage.settled(t, "job of "+session); item.GetComplete() == nil {
			t.Errorf("%s: %v", session, item)
		}
	}
	if made := network.connections.Load(); made != 2 {
		t.Errorf("%d connections", made)
	}
}

func TestConnectionsThatWereLeftAreClosed(t *testing.T) {
	stage, network := throughNetwork(t, "work")
	for range 10 {
		receive(t, stage.streams).openWith(t, "s", 100*time.Millisecond, nil)
		until(t, "the worker knows these terms", func() bool { return stage.log.count("session=s") > int(network.connections.Load())-1 })
		network.forget()
	}
	receive(t, stage.streams).open(t, "s")
	until(t, "all but one are closed", func() bool { return network.closed.Load() == network.connections.Load()-1 })
}

func TestAStreamAfterASilentOneHasMoreTime(t *testing.T) {
	session := standing{held: map[string]string{}}
	opens := func() {
		session.subscribing(1)
		session.event(1)
		session.open, session.grace = true, 15*time.Second
	}
	check := func(wanted time.Duration) {
		t.Helper()
		if left := session.eventDue().Sub(session.lastEvent); left != wanted {
			t.Errorf("%v, not %v", left, wanted)
		}
	}
	opens()
	check(7500 * time.Millisecond)
	session.fellSilent()
	opens()
	// A delivery that takes eight seconds arrives at the second attempt.
	check(10 * time.Second)
	session.event(2)
	check(7500 * time.Millisecond)
}
