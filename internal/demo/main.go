// Demo shows the library at work: events go from files through reserved graceids
// and Kafka to a consumer, and into GraceDB.
//
//	go run ./internal/demo                 on an embedded broker and GraceDB
//	go run ./internal/demo -brokers host:port,… -service https://…/api/ file…
//	go run ./internal/demo stream -brokers host:port,… -service https://…/api/ topic…
//	go run ./internal/demo serve           keeps the embedded ones up, for other programs
//
// Each takes -h, and ends cleanly by Ctrl-C or SIGTERM, which go run, however, keeps
// to itself. With real services the token is the one found on the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	if _, ok := errors.AsType[usageError](err); ok {
		os.Exit(2)
	}
	os.Exit(1)
}

// run is the program. It returns when all that it started has ended.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	command, rest := publish, args
	if len(args) > 0 {
		switch args[0] {
		case "stream":
			command, rest = stream, args[1:]
		case "serve":
			command, rest = serve, args[1:]
		}
	}
	err := command(ctx, rest, stdout, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}
