//go:build unix

package realkafka

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// controllerID is the node of the controller that stands apart: killing a broker
// then never touches the quorum.
const controllerID = 100

// properties returns server.properties of a node.
func (c *Cluster) properties(n *node) string {
	p := map[string]string{
		"node.id":                        strconv.Itoa(n.id),
		"log.dirs":                       filepath.Join(n.dir, "data"),
		"controller.listener.names":      "CONTROLLER",
		"inter.broker.listener.name":     "INTERNAL",
		"listener.security.protocol.map": "CLIENT:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"controller.quorum.voters":       fmt.Sprintf("%d@127.0.0.1:%d", c.controller.id, c.controller.ports.controller),
		// Whoever comes through the plaintext listener is the super user.
		"authorizer.class.name":            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":                      "User:ANONYMOUS",
		"allow.everyone.if.no.acl.found":   "false",
		"auto.create.topics.enable":        "false",
		"num.network.threads":              "2",
		"num.io.threads":                   "2",
		"log.cleaner.enable":               "false",
		"group.initial.rebalance.delay.ms": "0",
	}
	// A broker that was killed is taken back only once it counts as gone.
	p["broker.heartbeat.interval.ms"] = "500"
	p["broker.session.timeout.ms"] = "3000"
	replicas, inSync := "1", "1"
	if len(c.nodes) > 1 {
		replicas, inSync = "3", "2"
	}
	p["default.replication.factor"] = replicas
	p["min.insync.replicas"] = inSync
	for _, internal := range []string{"offsets.topic", "transaction.state.log", "share.coordinator.state.topic"} {
		p[internal+".replication.factor"] = replicas
	}
	p["offsets.topic.num.partitions"] = "1"
	p["transaction.state.log.num.partitions"] = "1"
	p["transaction.state.log.min.isr"] = inSync
	p["share.coordinator.state.topic.min.isr"] = inSync

	size := strconv.Itoa(cmp.Or(c.cfg.MessageMaxBytes, 10<<20))
	p["message.max.bytes"] = size
	p["replica.fetch.max.bytes"] = size

	c.listeners(n, p)
	maps.Copy(p, c.cfg.Properties)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", k, p[k])
	}
	return b.String()
}

// listeners adds the node's roles and listeners to p: CLIENT for those under test,
// INTERNAL for brokers and for this package, CONTROLLER for the quorum.
func (c *Cluster) listeners(n *node, p map[string]string) {
	controller := fmt.Sprintf("CONTROLLER://127.0.0.1:%d", n.ports.controller)
	broker := fmt.Sprintf("CLIENT://%%s:%d,INTERNAL://127.0.0.1:%d", n.ports.client, n.ports.internal)
	advertised, listening := fmt.Sprintf(broker, "localhost"), fmt.Sprintf(broker, "127.0.0.1")
	switch {
	case n != c.controller:
		p["process.roles"] = "broker"
		p["listeners"], p["advertised.listeners"] = listening, advertised
	case len(c.nodes) == 1:
		p["process.roles"] = "broker,controller"
		p["listeners"], p["advertised.listeners"] = listening+","+controller, advertised+","+controller
	default:
		p["process.roles"] = "controller"
		p["listeners"] = controller
		return
	}
	if own := c.cfg.Advertise; own != "" {
		p["advertised.listeners"] = strings.ReplaceAll(p["advertised.listeners"], n.clientAddr(), own)
	}
	const client = "listener.name.client."
	p[client+"ssl.keystore.type"] = "PEM"
	p[client+"ssl.keystore.location"] = filepath.Join(c.dir, "server.pem")
	p[client+"ssl.client.auth"] = "none"
	p[client+"ssl.enabled.protocols"] = "TLSv1.2,TLSv1.3"
	p[client+"sasl.enabled.mechanisms"] = "OAUTHBEARER"

	const oauth = client + "oauthbearer."
	const library = "org.apache.kafka.common.security.oauthbearer."
	p[oauth+"sasl.jaas.config"] = library + "OAuthBearerLoginModule required ;"
	p[oauth+"sasl.server.callback.handler.class"] = library + "OAuthBearerValidatorCallbackHandler"
	p[oauth+"sasl.oauthbearer.jwks.endpoint.url"] = c.keys.url
	p[oauth+"sasl.oauthbearer.jwks.endpoint.refresh.ms"] = "2000"
	p[oauth+"sasl.oauthbearer.expected.audience"] = strings.Join(Audiences, ",")
	p[oauth+"sasl.oauthbearer.expected.issuer"] = c.Issuer.URL()
	p[oauth+"sasl.oauthbearer.sub.claim.name"] = "sub"
	p[oauth+"sasl.oauthbearer.scope.claim.name"] = "scope"
	p[oauth+"sasl.oauthbearer.clock.skew.seconds"] = "0"
	p[oauth+"connections.max.reauth.ms"] = strconv.FormatInt(cmp.Or(c.cfg.SessionLife, time.Minute).Milliseconds(), 10)
}

type ports struct{ client, internal, controller int }

// freePorts returns ports that nobody uses, this cluster's other nodes included.
func (c *Cluster) freePorts(ctx context.Context) (ports, error) {
	var p [3]int
	for i := range p {
		for try := 0; p[i] == 0; try++ {
			// Below the range the kernel takes from for outgoing connections: of
			// those, a client that keeps dialling a dead broker's port would in the
			// end be given that very port, and be connected to itself.
			port := 15000 + rand.IntN(15000)
			l, err := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				if try == 100 {
					return ports{}, fmt.Errorf("realkafka: no free port: %w", err)
				}
				continue
			}
			_ = l.Close()
			if !slices.Contains(c.taken, port) {
				c.taken = append(c.taken, port)
				p[i] = port
			}
		}
	}
	return ports{client: p[0], internal: p[1], controller: p[2]}, nil
}
