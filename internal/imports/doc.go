// Package imports holds the list of which package may import which, and the test that holds
// the code and the linter's rules to it.
package imports
