//go:build !unix

package savefile

const noWait = 0
