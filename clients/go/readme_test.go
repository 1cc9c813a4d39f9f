package jobwire

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// What the README shows compiles.
func TestTheReadmesProgramsCompile(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) < 2 {
		t.Fatalf("%d programs", len(blocks))
	}
	for _, block := range blocks {
		program := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(program, block[1], 0o600); err != nil {
			t.Fatal(err)
		}
		if said, err := exec.CommandContext(t.Context(), "go", "vet", program).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s\n%s", err, said, block[1])
		}
	}
}
