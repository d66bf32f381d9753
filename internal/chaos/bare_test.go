//go:build unix

package chaos

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"

	"github.com/gracedb-go/gracedb"
)

// A bareClient is franz-go with its own defaults.
type bareClient struct{ client *kgo.Client }

func newBare(c gracedb.Cluster, topic string) (publisher, error) {
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	dial := c.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...), kgo.DefaultProduceTopic(topic),
		kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			raw, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			conn := tls.Client(raw, &tls.Config{RootCAs: pool, ServerName: "localhost"})
			if err := conn.HandshakeContext(ctx); err != nil {
				_ = raw.Close()
				return nil, err
			}
			return conn, nil
		}),
		kgo.SASL(oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
			token, err := c.Token(ctx)
			return oauth.Auth{Token: token}, err
		})))
	return &bareClient{client}, err
}

func (b *bareClient) Produce(ctx context.Context, m gracedb.Message, done func(gracedb.Message, error)) error {
	b.client.Produce(ctx, &kgo.Record{Key: m.Key, Value: m.Value}, func(r *kgo.Record, err error) {
		m.Partition, m.Offset = r.Partition, r.Offset
		done(m, told(err))
	})
	return nil
}

func (b *bareClient) ProduceSync(ctx context.Context, m gracedb.Message) (gracedb.Message, error) {
	r, err := b.client.ProduceSync(ctx, &kgo.Record{Key: m.Key, Value: m.Value}).First()
	if err == nil {
		m.Partition, m.Offset = r.Partition, r.Offset
	}
	return m, told(err)
}

func (b *bareClient) Close() error {
	err := b.client.Flush(context.Background())
	b.client.Close()
	return err
}

// told makes what franz-go says fit into a history: it knows no outcome but
// failure.
func told(err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(gracedb.ErrDelivery, err)
}
