package documents

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// exported returns every name that the root package exports: of types, functions, kinds of
// errors, fields and methods.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	for _, f := range rootFiles(t) {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				names[n.Name.Name] = n.Name.IsExported()
				return false
			case *ast.TypeSpec:
				names[n.Name.Name] = true
			case *ast.ValueSpec:
				for _, name := range n.Names {
					names[name.Name] = true
				}
			case *ast.Field:
				for _, name := range n.Names {
					names[name.Name] = true
				}
			}
			return true
		})
	}
	return names
}

// peer has what ligo-gracedb 2.16.1 lets its users name: parameters, methods, functions and
// exceptions, as inspect.signature shows them.
const peer = `
create_kafka_producer bootstrap_servers topic ca_cert_path skip_hostname_verification token_scope reload_cred
reload_buffer auto_refresh_token kafka_config
create_event group pipeline filename search labels offline filecontents kafka http_fallback gracedb_upload
skip_supervisor replay_id reserve_graceid upload_reserved_event kafka_server kafka_topic
GraceDbKafkaProducer instance_name service_url use_ssl token_audience flush_timeout guaranteed_delivery
validate_token check_for_topics
produce value key headers partition on_delivery callback flush timeout strict close ping pending_messages
GraceDbKafkaConsumer topics group_id auto_offset_reset subscribe poll None stop stream count
SciTokenRefreshManager refresh_buffer get_token get_scitoken_for_kafka create_oauth_callback
broker_url scope audience derive_instance_name make_topic_name parse_topic_name
KafkaError KafkaAuthenticationError KafkaTokenError KafkaProducerError KafkaConsumerError KafkaConnectionError
KafkaMessageDeliveryError KafkaTopicError ValueError HTTPError
type gracedb_server graceid submitter eventFile _producer_timestamp content_id
`

// docs/from-python.md has each name of the Python package's Kafka page, and what it has to
// the right of it is there. So is what README.md has.
func TestFromPython(t *testing.T) {
	code, word := regexp.MustCompile("`([^`]*)`"), regexp.MustCompile(`\w+`)
	// Of others: kgo, the standard library.
	others := strings.Fields("Second Minute Opt Client DeadlineExceeded WithTimeout NotifyContext Is As ErrUnsupported")
	ours := exported(t)
	left := make(map[string]bool)
	for name, text := range map[string]string{
		"docs/from-python.md": document(t, "docs/from-python.md"),
		"README.md":           section(t, document(t, "README.md"), "## From Python\n", "\n## "),
	} {
		rows := 0
		for _, m := range regexp.MustCompile(`(?m)^\| (.*?) \| (.*) \|$`).FindAllStringSubmatch(text, -1) {
			rows++
			for _, c := range code.FindAllStringSubmatch(m[1], -1) {
				for _, w := range word.FindAllString(c[1], -1) {
					left[w] = true
				}
			}
			for _, c := range code.FindAllStringSubmatch(m[2], -1) {
				for _, w := range word.FindAllString(c[1], -1) {
					if w[0] >= 'A' && w[0] <= 'Z' && !ours[w] && !slices.Contains(others, w) {
						t.Errorf("%s: there is no %s: %s", name, w, m[0])
					}
				}
			}
		}
		if rows < 6 {
			t.Errorf("%s has only %d rows", name, rows)
		}
	}
	for w := range strings.FieldsSeq(peer) {
		if !left[w] {
			t.Errorf("docs/from-python.md has no row for %s", w)
		}
	}
}
