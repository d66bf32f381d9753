package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/gracedb-go/gracedb"
)

// A usageError is a mistake on the command line.
type usageError struct{ error }

func badUsage(format string, args ...any) error {
	return usageError{fmt.Errorf("demo: "+format+" (-h explains)", args...)}
}

// parse reads args into the flags of fs, which name themselves in its error. With
// -h it writes synopsis and flags to stdout and returns flag.ErrHelp.
func parse(fs *flag.FlagSet, args []string, stdout io.Writer, synopsis string) error {
	fs.SetOutput(io.Discard) // what it would write, the error says too
	fs.Usage = func() {}
	err := fs.Parse(args)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(stdout, "usage: %s\n", synopsis)
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return err
	}
	return badUsage("%w", err)
}

// A connection says where real services are.
type connection struct{ brokers, service, ca string }

func (c *connection) register(fs *flag.FlagSet) {
	fs.StringVar(&c.brokers, "brokers", "", "Kafka brokers, `host:port,…`")
	fs.StringVar(&c.service, "service", "", "GraceDB service `URL`, such as https://gracedb-test.ligo.org/api/; its host names the topics")
	fs.StringVar(&c.ca, "ca", "", "PEM `file` of the authorities to trust instead of the system's")
}

func (c *connection) check() error {
	switch {
	case c.brokers == "":
		return badUsage("-brokers is required")
	case c.service == "":
		return badUsage("-service is required with -brokers")
	}
	return nil
}

// services are a Kafka cluster, and the GraceDB that its events go to.
type services struct {
	cluster gracedb.Cluster
	client  gracedb.ClientConfig
}

// services leaves Token nil in both: the library then looks where tokens are kept.
func (c *connection) services(stderr io.Writer) services {
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return services{
		cluster: gracedb.Cluster{Brokers: strings.Split(c.brokers, ","), ServiceURL: c.service, CAFile: c.ca, Logger: log},
		client:  gracedb.ClientConfig{ServiceURL: c.service, CAFile: c.ca, Logger: log},
	}
}
