#!/usr/bin/env bash
# go doc of Go 1.26.8 (package go/doc): constructors are listed away from their types as soon as the package has, anywhere and
# not exported, a struct that embeds error.
#
# A function that returns one type of its package, and errors or anything else of other packages, is documented below that type.
# For an embedded field go/doc notes a type of that name in the package, without looking whether it is the predeclared one. From
# then on "error" counts as a type of the package, a constructor with the results (*T, error) has two, and it is listed under
# FUNCTIONS. Nothing of the public code has changed, and go vet, the compiler and the documentation's text say nothing: whoever
# compares the output of go doc -all between versions sees constructors move when a helper type comes or goes.
# (The two packages below differ in the last line alone.)
#
# Seen: without it, "func NewT() (*T, error)" stands below "type T struct{}"; with it, above, under FUNCTIONS.
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
export GOTOOLCHAIN=go1.26.8 GOFLAGS= GOMODCACHE="$work/mod" GOCACHE="$work/cache" GOPROXY="${GOPROXY:-https://proxy.golang.org}"

package() { # with its last line
  mkdir "$1"
  printf 'module example.org/p\n\ngo 1.26\n' >"$1/go.mod"
  printf 'package p\n\ntype T struct{}\n\nfunc NewT() (*T, error) { return nil, nil }\n\n%s\n' "$2" >"$1/p.go"
}
package without ''
package with 'type wrapped struct{ error }'

# where says what stands first in the documentation.
where() { (cd "$1" && go vet . && go doc -all . | grep -E '^(func NewT|type T )' | head -1); }
without=$(where without) with=$(where with)
go version
echo "without an embedded error, first: $without"
echo "with one, not exported, first:    $with"
[ "$without" = 'type T struct{}' ] || { echo "changed: without it the constructor does not follow its type"; exit 1; }
[ "$with" = 'func NewT() (*T, error)' ] || { echo "changed: with it the constructor follows its type, too"; exit 1; }
