//go:build unix

package realkafka

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// Version returns the version of Apache Kafka that runs: that in $GRACEDB_KAFKA, or
// 4.3.1.
func Version() string { return cmp.Or(os.Getenv("GRACEDB_KAFKA"), "4.3.1") }

// versionText is what a version may be: it becomes part of a path and of XML.
var versionText = regexp.MustCompile(`^[0-9]+(\.[0-9]+)+$`)

// pom asks Maven for the broker and for something that prints its log.
const pom = `<project><modelVersion>4.0.0</modelVersion><groupId>realkafka</groupId><artifactId>realkafka</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>%s</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
`

// CacheDir returns the directory for what is fetched once and kept between runs.
func CacheDir() (string, error) {
	if dir := os.Getenv("GRACEDB_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("realkafka: no cache directory, set GRACEDB_CACHE: %w", err)
	}
	return filepath.Join(dir, "gracedb-go"), nil
}

// jars returns the directory with Kafka's jars, which it fills if need be. Any
// number of processes may do so at once: each fetches into a directory of its own,
// and the first to be done gives it its name.
func jars(ctx context.Context) (string, error) {
	version := Version()
	if !versionText.MatchString(version) {
		return "", fmt.Errorf("realkafka: GRACEDB_KAFKA is %q: set it to a version such as 4.3.1", version)
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "kafka-"+version)
	if isDir(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("realkafka: cache: %w", err)
	}
	tmp, err := os.MkdirTemp(cache, "fetch-*")
	if err != nil {
		return "", fmt.Errorf("realkafka: cache: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := os.WriteFile(filepath.Join(tmp, "pom.xml"), fmt.Appendf(nil, pom, version), 0o600); err != nil {
		return "", fmt.Errorf("realkafka: cache: %w", err)
	}
	lib := filepath.Join(tmp, "lib")
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	mvn := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", filepath.Join(tmp, "pom.xml"),
		"dependency:copy-dependencies", "-DoutputDirectory="+lib)
	if out, err := mvn.CombinedOutput(); err != nil {
		return "", fmt.Errorf("realkafka: fetching Kafka %s with Maven (apt-get install maven): %w\n%s", version, err, out)
	}
	if err := os.Rename(lib, dir); err != nil && !isDir(dir) {
		return "", fmt.Errorf("realkafka: cache: %w", err)
	}
	return dir, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// java returns the path of the Java launcher.
func java() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		return filepath.Join(home, "bin", "java"), nil
	}
	path, err := exec.LookPath("java")
	if err != nil {
		return "", fmt.Errorf("realkafka: Kafka %s needs Java 17 (apt-get install openjdk-17-jre-headless): %w", Version(), err)
	}
	return path, nil
}
