package jobwire

// notice wakes all who wait for a change of what a lock guards: take the channel with the lock held, and look again when it is closed.
type notice struct {
	told chan struct{}
}

// wait returns the channel that the next tell closes. To be called with the lock.
func (n *notice) wait() <-chan struct{} {
	if n.told == nil {
		n.told = make(chan struct{})
	}
	return n.told
}

// tell wakes those who wait now. To be called with the lock.
func (n *notice) tell() {
	if n.told != nil {
		close(n.told)
		n.told = nil
	}
}

// bell wakes one goroutine, also one that comes to wait later; ringing it twice is ringing it once.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

// silence takes back a ring that nobody has heard.
func (b bell) silence() {
	select {
	case <-b:
	default:
	}
}
