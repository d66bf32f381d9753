package diagnose

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
)

const (
	otherGroup = "take another GroupID, or stop those who use it"
	groupRight = "have whoever runs the brokers give the right READ on the group; some sites want a prefix of their own"
)

// addGroup reports whether the group may be used, and is one that a Consumer can join.
func (r *report) addGroup(caller context.Context, k *kafka) {
	ctx, cancel := context.WithTimeout(caller, requestTime)
	defer cancel()
	id, began := k.cfg.GroupID, time.Now()
	var state kmsg.DescribeGroupsResponseGroup
	kind := ""
	err := k.Await(ctx, cluster.Starting, "asking for group "+id, func(ctx context.Context) (err error) {
		if state, err = k.describeGroup(ctx, id); err != nil {
			return err
		}
		kind = k.kindOfGroup(ctx, id)
		return nil
	})
	took := time.Since(began)
	switch {
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		r.fail("group", id, took, k.noGroup(id, err), groupRight)
	case err != nil:
		r.fail("group", id, took, err, "look whether the brokers are up: the coordinator of the group is one of them")
	case cluster.Forbids(state.AuthorizedOperations, kmsg.ACLOperationRead):
		r.fail("group", id, took, k.noGroup(id, kerr.GroupAuthorizationFailed), groupRight)
	case kind == "share", state.ProtocolType != "" && state.ProtocolType != "consumer":
		r.add(Finding{
			Check: "group", Target: id, Severity: Failure, Took: took, Advice: otherGroup,
			Detail: fmt.Sprintf("it is used by others than consumers (kind %q, protocol %q)", kind, state.ProtocolType),
		})
	case kind == "consumer":
		r.warn("group", id, took, "its members use group.protocol=consumer, and a Consumer the classic protocol: brokers may not let both in", otherGroup)
	case len(state.Members) > 0:
		r.ok("group", id, took, "%s may use it; it has %d member(s), with whom a Consumer shares the partitions", k.Principal(), len(state.Members))
	default:
		r.ok("group", id, took, "%s may use it; nobody does", k.Principal())
	}
}

func (k *kafka) noGroup(id string, cause error) error {
	return errs.New([]error{errs.Kafka, kerr.GroupAuthorizationFailed, cause}, "kafka: group %s: %s may not use it (it takes the right READ)", errs.Clean(id), k.Principal())
}

// describeGroup asks the coordinator for a group. Of one that is not there Kafka tells no rights,
// and before 2.3 of none: then a heartbeat of no member does, which takes the right READ, and
// changes nothing.
func (k *kafka) describeGroup(ctx context.Context, id string) (kmsg.DescribeGroupsResponseGroup, error) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups, req.IncludeAuthorizedOperations = []string{id}, true
	resp, err := req.RequestWith(ctx, k.KGO)
	if err != nil {
		return kmsg.NewDescribeGroupsResponseGroup(), err
	}
	state := kmsg.NewDescribeGroupsResponseGroup()
	for _, g := range resp.Groups {
		state = g
	}
	err = kerr.ErrorForCode(state.ErrorCode)
	if errors.Is(err, kerr.GroupIDNotFound) || err == nil && cluster.RightsUnknown(state.AuthorizedOperations) {
		err = k.beat(ctx, id)
	}
	return state, err
}

// beat sends the heartbeat of a member that no group has. All that is not about rights is as it
// should be.
func (k *kafka) beat(ctx context.Context, id string) error {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = id, "gracedb-diagnose", -1
	resp, err := req.RequestWith(ctx, k.KGO)
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); errors.Is(err, kerr.GroupAuthorizationFailed) {
		return err
	}
	return nil
}

// kindOfGroup returns "classic", "consumer" or "share"; "" if there is no such group, or brokers
// older than Kafka 3.8, or that do not answer, do not tell.
func (k *kafka) kindOfGroup(caller context.Context, id string) string {
	ctx, cancel := context.WithTimeout(caller, stepTime)
	defer cancel()
	resp, err := kmsg.NewPtrListGroupsRequest().RequestWith(ctx, k.KGO) // all brokers are asked
	if err != nil {
		return ""
	}
	for _, g := range resp.Groups {
		if g.Group == id {
			return g.GroupType
		}
	}
	return ""
}
