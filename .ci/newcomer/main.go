// Newcomer does what README.md tells a new user to do, outside the clone: it gets the
// library through a module proxy, which it makes of the clone's files, builds the
// programs of the sections Publish and Consume, runs them against
// internal/demo serve, and compares what they print with the README.
//
//	go run .ci/newcomer/main.go     in the root of the clone
//
// All other modules come from the module cache: nothing is fetched from the network.
package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	module   = "github.com/gracedb-go/gracedb"
	version  = "v0.1.0" // as the proxy calls what is in the clone
	event    = "testdata/events/coinc.xml"
	patience = time.Minute
)

func main() {
	work, err := os.MkdirTemp("", "newcomer")
	if err == nil {
		err = errors.Join(run(work), os.RemoveAll(work))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "newcomer:", err)
		os.Exit(1)
	}
}

func run(work string) error {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		return err
	}
	page := string(readme)
	env, err := outside(work)
	if err != nil {
		return err
	}
	if err := makeProxy(filepath.Join(work, "proxy")); err != nil {
		return err
	}
	for _, name := range []string{"Publish", "Consume"} {
		if err := makeProgram(filepath.Join(work, strings.ToLower(name)), page, name, env); err != nil {
			return fmt.Errorf("the program of README's section %s: %w", name, err)
		}
	}
	services, env, err := serve(work, env)
	if err != nil {
		return err
	}
	defer services.stop()
	if err := compare(work, page, env); err != nil {
		return err
	}
	_, err = services.line("T1001 is in GraceDB")
	return err
}

// outside returns the environment of commands that are to find the clone through the
// proxy alone, and all else in the module cache of now.
func outside(work string) ([]string, error) {
	cache, err := output(exec.Command("go", "env", "GOMODCACHE"))
	if err != nil {
		return nil, err
	}
	proxies := "file://" + filepath.ToSlash(filepath.Join(work, "proxy")) +
		",file://" + filepath.ToSlash(filepath.Join(cache, "cache", "download"))
	return append(
		os.Environ(), "GOPROXY="+proxies, "GOSUMDB=off", "GONOPROXY=none", "GOWORK=off", "CGO_ENABLED=0",
		// A cache of its own: the version that the proxy has is another each time.
		"GOMODCACHE="+filepath.Join(work, "modules"), "GOFLAGS=-mod=mod -modcacherw -trimpath",
	), nil
}

// makeProxy makes a module proxy that has the clone's files as git knows them.
func makeProxy(dir string) error {
	dir = filepath.Join(dir, filepath.FromSlash(module), "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	gomod, err := os.ReadFile("go.mod")
	if err != nil {
		return err
	}
	archive, err := zipClone()
	if err != nil {
		return err
	}
	info := fmt.Sprintf(`{"Version":%q,"Time":%q}`, version, time.Now().UTC().Format(time.RFC3339))
	for name, data := range map[string][]byte{
		"list": []byte(version + "\n"), version + ".info": []byte(info), version + ".mod": gomod, version + ".zip": archive,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// zipClone returns the clone as a module's zip file: without the modules below it.
func zipClone() ([]byte, error) {
	list, err := output(exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"))
	if err != nil {
		return nil, err
	}
	files := strings.Split(strings.Trim(list, "\x00"), "\x00")
	var nested []string
	for _, file := range files {
		if dir, ok := strings.CutSuffix(file, "/go.mod"); ok {
			nested = append(nested, dir+"/")
		}
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, file := range files {
		if slices.ContainsFunc(nested, func(dir string) bool { return strings.HasPrefix(file, dir) }) {
			continue
		}
		if at, err := os.Lstat(file); err != nil || !at.Mode().IsRegular() {
			continue // deleted, or a link, which modules do not hold
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		w, err := z.Create(module + "@" + version + "/" + file)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	err = z.Close()
	return b.Bytes(), err
}

// makeProgram makes, in a module of its own, the program of a section of the README.
func makeProgram(dir, page, name string, env []string) error {
	source, err := block(page, name, "go")
	if err != nil {
		return err
	}
	const get = "go get " + module
	if !strings.Contains(page, "\n"+get+"\n") {
		return fmt.Errorf("README.md has no line: %s", get)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644); err != nil {
		return err
	}
	program := filepath.Base(dir)
	for _, command := range []string{"go mod init example.org/" + program, get, "go vet", "go build -o " + program} {
		start := time.Now()
		if err := show(dir, env, strings.Fields(command)...); err != nil {
			return err
		}
		fmt.Printf("%s: %s: %.1f s\n", program, command, time.Since(start).Seconds())
	}
	return static(filepath.Join(dir, program))
}

// block returns the first block of a language in a section of a page.
func block(page, section, language string) (string, error) {
	_, rest, ok := strings.Cut(page, "\n## "+section+"\n")
	if ok {
		rest, _, _ = strings.Cut(rest, "\n## ")
		_, rest, ok = strings.Cut(rest, "\n```"+language+"\n")
	}
	text, _, closed := strings.Cut(rest, "```\n")
	if !ok || !closed {
		return "", fmt.Errorf("README.md has no block of %s in section %s", language, section)
	}
	return text, nil
}

// static reports an error if a program needs libraries of the system.
func static(program string) error {
	if runtime.GOOS != "linux" {
		return nil
	}
	f, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		return fmt.Errorf("built with CGO_ENABLED=0 it needs %v: %w", libraries, err)
	}
	return nil
}

// compare runs the programs and compares what they print with the README: once with
// Kafka, and once while it is away.
func compare(work, page string, env []string) error {
	want, err := block(page, "Consume", "text")
	if err != nil {
		return err
	}
	received, published, _ := strings.Cut(want, "\n")
	consumer, err := start(filepath.Join(work, "consume"), env,
		"./consume", "-service", value(env, "TEST_SERVICE"), "-broker", value(env, "KAFKA_BROKER"))
	if err != nil {
		return err
	}
	defer consumer.stop()
	if _, err := consumer.line("whatever is published from now on"); err != nil {
		return err
	}
	data, err := os.ReadFile(event)
	if err != nil {
		return err
	}
	dir := filepath.Join(work, "publish")
	file := filepath.Base(event)
	if err := os.WriteFile(filepath.Join(dir, file), data, 0o644); err != nil {
		return err
	}
	publish := func(kafka string) (string, error) {
		cmd := exec.Command("./publish", "-service", value(env, "TEST_SERVICE"), "-broker", kafka, file)
		cmd.Dir, cmd.Env, cmd.Stderr = dir, env, os.Stdout
		return output(cmd)
	}
	got, err := publish(value(env, "KAFKA_BROKER"))
	if err != nil {
		return err
	}
	if got != strings.TrimSpace(published) {
		return fmt.Errorf("the publisher prints %q, the README says %q", got, published)
	}
	if _, err := consumer.line(received); err != nil {
		return err
	}
	got, err = publish("localhost:1") // where nobody listens
	if err != nil {
		return err
	}
	if !strings.HasPrefix(got, "T1002 over HTTP: ") || !strings.Contains(got, "localhost:1: ") {
		return fmt.Errorf("without a broker the publisher prints %q", got)
	}
	fmt.Println(received + "\n" + strings.TrimSpace(published) + "\n" + got)
	return nil
}

// serve starts internal/demo serve, and returns env with what it says to export.
func serve(work string, env []string) (*process, []string, error) {
	demo := filepath.Join(work, "demo")
	if err := show(".", os.Environ(), "go", "build", "-o", demo, "./internal/demo"); err != nil {
		return nil, nil, err
	}
	p, err := start(work, os.Environ(), demo, "serve")
	if err != nil {
		return nil, nil, err
	}
	for {
		line, err := p.line("")
		if err != nil {
			p.stop()
			return nil, nil, err
		}
		if names, ok := strings.CutPrefix(line, "unset "); ok {
			for _, name := range strings.Fields(names) {
				env = slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
			}
		}
		if variable, ok := strings.CutPrefix(line, "export "); ok {
			env = append(env, variable)
		}
		if strings.HasPrefix(line, "# and there") {
			return p, env, nil
		}
	}
}

// A process is a program that runs beside this one.
type process struct {
	cmd   *exec.Cmd
	lines chan string // that it prints, to either output
}

func start(dir string, env []string, command ...string) (*process, error) {
	p := &process{exec.Command(command[0], command[1:]...), make(chan string, 1000)}
	p.cmd.Dir, p.cmd.Env = dir, env
	printed, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		_ = w.Close()
	}()
	go func() {
		defer close(p.lines)
		for scan := bufio.NewScanner(printed); scan.Scan(); {
			p.lines <- scan.Text()
		}
	}()
	return p, nil
}

// line waits for a line that holds text.
func (p *process) line(text string) (string, error) {
	var seen []string
	late := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				return "", fmt.Errorf("%s ended; wanted a line with %q; it printed %q", p.cmd.Path, text, seen)
			}
			if strings.Contains(line, text) {
				return line, nil
			}
			seen = append(seen, line)
		case <-late:
			return "", fmt.Errorf("%s: no line with %q within %v; it printed %q", p.cmd.Path, text, patience, seen)
		}
	}
}

// stop ends the process as Ctrl-C does.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	kill := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	for range p.lines { // until it has ended
	}
}

// value returns a variable of env, of which the last counts.
func value(env []string, name string) string {
	for _, v := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// output runs a command and returns what it prints, without space around.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// show runs a command whose output is for whoever looks at CI.
func show(dir string, env []string, command ...string) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, os.Stdout, os.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(command, " "), err)
	}
	return nil
}
