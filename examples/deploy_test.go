//go:build unix

package examples_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// An image is what deploy/Dockerfile makes.
type image struct {
	build      []string // the command of the stage build
	copies     map[string]string
	user       string
	env        []string
	entrypoint []string
	cmd        []string
}

// dockerfile parses deploy/Dockerfile, as far as that goes: one instruction a line.
func dockerfile(t *testing.T) image {
	t.Helper()
	var (
		i     = image{copies: map[string]string{}}
		stage string
		err   error
	)
	for line := range strings.Lines(read(t, "deploy/Dockerfile")) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		fields := strings.Fields(rest)
		switch {
		case name == "" || name[0] == '#':
		case name == "FROM":
			stage = fields[0]
		case strings.HasPrefix(stage, "golang:"):
			if name == "RUN" {
				i.build = fields
			}
		case name == "COPY" && fields[0] == "--from=build":
			i.copies[fields[1]] = fields[2]
		case name == "USER":
			i.user = rest
		case name == "ENV":
			i.env = append(i.env, rest)
		case name == "ENTRYPOINT":
			err = json.Unmarshal([]byte(rest), &i.entrypoint)
		case name == "CMD":
			err = json.Unmarshal([]byte(rest), &i.cmd)
		case name != "EXPOSE":
			t.Errorf("deploy/Dockerfile: %s was not expected", name)
		}
		if err != nil {
			t.Errorf("deploy/Dockerfile: %s: %v", name, err)
		}
	}
	if stage != "scratch" {
		t.Errorf("deploy/Dockerfile: the last stage is from %s", stage)
	}
	return i
}

// The image's builder has the Go that the modules ask for.
func TestGoOfDockerfile(t *testing.T) {
	t.Parallel()
	m := regexp.MustCompile(`(?m)^FROM golang:(\d+\.\d+) `).FindStringSubmatch(read(t, "deploy/Dockerfile"))
	if m == nil {
		t.Fatal("deploy/Dockerfile is not from golang")
	}
	for _, file := range []string{"go.mod", "../go.mod"} {
		if !strings.Contains(read(t, file), "\ngo "+m[1]+".") {
			t.Errorf("%s asks for another Go than %s", file, m[1])
		}
	}
}

// The image holds what the program needs: started in a directory of nothing else, by
// another user, it reaches broker and GraceDB.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	i, s := dockerfile(t), startServices(t)
	root := write(t, map[string]string{
		"etc/ssl/certs/ca-certificates.crt": string(s.ca),
		// What a container's runtime adds.
		"etc/resolv.conf": "nameserver 127.0.0.1\n", "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
		"run/secrets/igwn/token": s.token,
	})
	// The command of RUN, with the image's root elsewhere.
	at := slices.Index(i.build, "-o")
	if at < 0 || i.build[0] != "CGO_ENABLED=0" || i.copies[i.build[at+1]] != i.entrypoint[0] {
		t.Fatalf("%q does not make %q", i.build, i.entrypoint)
	}
	i.build[at+1] = filepath.Join(root, i.entrypoint[0])
	build := exec.CommandContext(t.Context(), i.build[1], i.build[2:]...)
	build.Dir, build.Env = "..", append(os.Environ(), i.build[0])
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(i.copies) != 2 || i.copies["/etc/ssl/certs/ca-certificates.crt"] == "" {
		t.Errorf("the image is copied from %q", i.copies)
	}

	cmd := exec.Command(i.entrypoint[0], s.arguments(t, append(i.entrypoint[1:], i.cmd...))...)
	cmd.Env = i.env
	if !slices.Contains(i.env, "BEARER_TOKEN_FILE=/run/secrets/igwn/token") || i.user != "65532:65532" {
		t.Errorf("%q, user %s", i.env, i.user)
	}
	if os.Geteuid() == 0 {
		allow(t, root, 65532)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	} else {
		t.Log("only root can start it in a directory of its own")
		cmd.Path = filepath.Join(root, i.entrypoint[0])
		cmd.Env = s.environment(t, "BEARER_TOKEN_FILE="+filepath.Join(root, "run/secrets/igwn/token"))
	}
	followed(t, s, start(t, cmd))
}

// allow gives a directory, and all in it, to a user.
func allow(t *testing.T, dir string, uid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// followed sees that follow does its work, and that it ends as it should.
func followed(t *testing.T, s services, p *process) {
	t.Helper()
	address := p.addressOf(t)
	if status, body := get(t, address, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d %s", status, body)
	}
	s.publish(t)
	p.line(t, "graceid=T1001")
	p.stop(t, syscall.SIGTERM)
}

// The submit file has commands that HTCondor knows, and its job publishes with nothing but
// what is transferred, and the token where HTCondor puts it.
func TestHTCondor(t *testing.T) {
	t.Parallel()
	known := strings.Fields(`universe executable arguments should_transfer_files transfer_input_files
		when_to_transfer_output use_oauth_services igwn_oauth_resource igwn_oauth_permissions
		request_cpus request_memory request_disk log output error`)
	job, queued := map[string]string{}, false
	for line := range strings.Lines(read(t, "deploy/publish.sub")) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		switch {
		case line == "" || line[0] == '#':
		case queued:
			t.Errorf("%q stands behind queue", line)
		case line == "queue":
			queued = true
		case !ok || !slices.Contains(known, key):
			t.Errorf("HTCondor does not know %q", line)
		default:
			job[key] = strings.TrimSpace(value)
		}
	}
	if !queued || len(job) != len(known) {
		t.Errorf("it has %q", job)
	}
	s := startServices(t)
	files := map[string]string{"creds/" + job["use_oauth_services"] + ".use": s.token + "\n"}
	for name := range strings.SplitSeq(job["transfer_input_files"], ",") {
		files[strings.TrimSpace(name)] = event(t)
	}
	dir := write(t, files)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, job["executable"]), s.arguments(t, strings.Fields(job["arguments"]))...)
	cmd.Dir, cmd.Env = dir, s.environment(t, "_CONDOR_CREDS="+filepath.Join(dir, "creds"))
	out, err := cmd.Output()
	if err != nil || string(out) != "T1001 over Kafka: topic localhost.test, offset 0\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// A unit is a file of systemd's: the last value of each directive, by section.
type unit map[string]map[string]string

// The unit starts the program as it is, with a token where it says, and is good by systemd's
// own judge, where that is installed.
func TestSystemd(t *testing.T) {
	t.Parallel()
	const file = "deploy/follow.service"
	u, section := unit{}, ""
	for line := range strings.Lines(read(t, file)) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
			u[section] = map[string]string{}
		case !ok || section == "":
			t.Errorf("%s: %q is no directive", file, line)
		default:
			u[section][key] = value
		}
	}
	service := u["Service"]
	s := startServices(t)
	dir := write(t, map[string]string{"token": s.token})
	if want := "BEARER_TOKEN_FILE=/var/lib/" + service["StateDirectory"] + "/token"; service["Environment"] != want {
		t.Errorf("%s has %q, not %q", file, service["Environment"], want)
	}
	command := strings.Fields(service["ExecStart"])
	built := program(t, filepath.Base(command[0]))
	cmd := exec.Command(built, append(s.arguments(t, command[1:]), "-listen", "127.0.0.1:0")...)
	// Flags stand before the topics.
	topics := slices.Index(cmd.Args, "test")
	cmd.Args = slices.Concat(cmd.Args[:topics], cmd.Args[topics+1:], []string{"test"})
	cmd.Env = s.environment(t, "BEARER_TOKEN_FILE="+filepath.Join(dir, "token"))
	followed(t, s, start(t, cmd))

	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not installed")
		return
	}
	text := strings.ReplaceAll(read(t, file), command[0], built)
	verify := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", filepath.Join(write(t, map[string]string{"follow.service": text}), "follow.service"))
	if out, err := verify.CombinedOutput(); err != nil || strings.Contains(string(out), "follow.service") {
		t.Errorf("%v: %s", err, out)
	}
}
