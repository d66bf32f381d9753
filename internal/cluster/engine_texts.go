package cluster

import (
	"slices"
	"strings"
)

// This file is all that this package knows of franz-go by its texts, which no version of it
// promises to keep: where kgo gives no error value, and no hook, there is only the text. A test
// looks for each in the source of the version in go.mod.

// kgoToldElsewhere is how lines of kgo's log begin that users hear of in another way.
var kgoToldElsewhere = []string{
	"unable to open connection to broker",               // Health logs it
	"received OFFSET_OUT_OF_RANGE while consuming",      // Poll says so, and what is lost
	"metadata has a new ID for a topic we already hold", // Poll says so
	"unable to commit offset for topic partition",       // Commit or autoCommitted says so
}

// kgoTriesAgain is how lines of kgo's log begin that have the level of an error although kgo
// tries again, mostly with success within a second, such as after a rebalance.
var kgoTriesAgain = []string{"group manage loop errored"}

// KGOUnknownMagic is how kgo's error of a batch begins whose format it does not know. It passes
// over that batch itself.
const KGOUnknownMagic = "unknown magic"

func hasPrefix(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}
