package consume

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/sasl"
)

// groupTrouble is how the keys of a Consumer's troubles with its group begin. groupStays is how
// long one counts that is not met again: kgo tries to join several times a second.
const (
	groupTrouble = "group: "
	groupStays   = 2 * cluster.RequestTimeout
)

// errOfGroup is in every error that says what keeps a group from being used.
var errOfGroup = errors.New("the group cannot be used")

// A groupWatch is the Consumer as kgo's HookGroupManageError.
type groupWatch Consumer

// OnGroupManageError is called by kgo when this member cannot join its group, or was put out of
// it. kgo tries again, and returns the same from PollRecords as an ErrGroupSession.
func (w *groupWatch) OnGroupManageError(err error) {
	c := (*Consumer)(w)
	c.onGroupError(c.groupError(err))
}

// onGroupError makes Poll and Check tell err, if it keeps the group from being used.
func (c *Consumer) onGroupError(err error) {
	cause, ok := errors.AsType[*kerr.Error](err)
	if !ok || !errors.Is(err, errOfGroup) {
		return
	}
	if c.troubles.met(groupTrouble+cause.Message, err, groupStays) {
		c.report(errs.New([]error{err, errs.Consumer}, "%s", errs.Reason(err)))
	}
}

// endGroupTrouble notes that the coordinator has taken this member into the group.
func (c *Consumer) endGroupTrouble() {
	if c.troubles.over(groupTrouble) {
		c.cluster.Log.Info("gracedb: kafka: the group can be used again", "group", c.group)
	}
}

// lastsInGroup reports whether a coordinator's error lasts until a person mends its cause.
func lastsInGroup(err *kerr.Error) bool {
	switch {
	case sasl.IsRefusal(err), kerr.IsRetriable(err):
		return false
	case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.IllegalGeneration),
		errors.Is(err, kerr.RebalanceInProgress), errors.Is(err, kerr.MemberIDRequired):
		return false // the coordinator tells the member to join again, and kgo does
	case errors.Is(err, kerr.GroupIDNotFound):
		return false // the first commit or member makes the group
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.TopicAuthorizationFailed):
		return false // the topic is at fault: followTopics tells it
	}
	return true
}

// groupError says what err, about a group, means, and what to do. A group that does not
// exist yet has no position, which is no error.
func (c *Consumer) groupError(err error) error {
	if err == nil || errors.Is(err, kerr.GroupIDNotFound) {
		return nil
	}
	cause, ok := errors.AsType[*kerr.Error](err)
	if !ok || !lastsInGroup(cause) {
		return fmt.Errorf("group %s: %w", c.group, err)
	}
	var what string
	switch {
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		what = c.cluster.Principal() + " may not use it (it takes the right to READ the group; some sites want a prefix of their own)"
	case errors.Is(err, kerr.InconsistentGroupProtocol):
		what = "consumers of another kind use it (they share out partitions otherwise, use group.protocol=consumer, are a share group, or are no consumers): " +
			"take another GroupID, or stop those (a share group keeps its id until it is deleted)"
	case errors.Is(err, kerr.GroupMaxSizeReached):
		what = "it has as many members as the broker lets it have (group.max.size)"
	case errors.Is(err, kerr.FencedInstanceID):
		what = "another consumer uses the same InstanceID (in Cluster.Opts)"
	case errors.Is(err, kerr.InvalidSessionTimeout):
		what = fmt.Sprintf("the broker takes no session of %v (group.min.session.timeout.ms, group.max.session.timeout.ms)", sessionTimeout)
	}
	is := []error{errs.Consumer, errOfGroup, err}
	if what == "" {
		return errs.New(is, "kafka: group %s: %s", errs.Clean(c.group), errs.Reason(err))
	}
	return errs.New(is, "kafka: group %s: %s: %s", errs.Clean(c.group), cause.Message, what)
}

// logStarts says where the group begins to read, since it has no position there: it is
// new, or has been without members for so long that brokers have forgotten it, and then
// passes over what came meanwhile.
func (c *Consumer) logStarts(at offsetMap) {
	for _, topic := range slices.Sorted(maps.Keys(at)) {
		var starts []string
		for _, part := range slices.Sorted(maps.Keys(at[topic])) {
			where := "its first message"
			switch offset := at[topic][part].Offset; {
			case offset >= 0:
				where = strconv.FormatInt(offset, 10)
			case offset == -1:
				where = "its end, once a broker leads it"
			}
			starts = append(starts, fmt.Sprintf("%d at %s", part, where))
		}
		c.cluster.Log.Info("gracedb: kafka: the group has no position (it is new, or its position has expired), and starts where it says here",
			"group", c.group, "topic", topic, "from_beginning", c.from == earliest, "partitions", cluster.ShortList(starts))
	}
}
