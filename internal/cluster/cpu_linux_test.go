package cluster

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/testrace"
)

// cpuTime returns how long f keeps a core busy, however busy that is with others.
func cpuTime(t testing.TB, f func()) time.Duration {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	spent := func() time.Duration {
		const thread = 1 // RUSAGE_THREAD
		var u syscall.Rusage
		if err := syscall.Getrusage(thread, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := spent()
	f()
	return spent() - before
}

// eachList calls f with each list of v, however deep.
func eachList(v reflect.Value, path string, f func(path string, list reflect.Value)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Type().Field(i).Name != "UnknownTags" {
				eachList(v.Field(i), path+"."+v.Type().Field(i).Name, f)
			}
		}
	case reflect.Slice:
		f(path, v)
		if v.Len() > 0 {
			eachList(v.Index(0), path, f)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			eachList(v.Elem(), path, f)
		}
	}
}

// No answer of a size that is read keeps a core busy, whatever it has very many of: neither the
// look at it, nor kgo, which decodes what passes.
func TestAnswersTakeLittleTime(t *testing.T) {
	most := 400 * time.Millisecond // the longest took 25 to 40 ms
	part := 1
	if testrace.Enabled {
		part = 8 // it takes ten times as long
	}
	worst, what := time.Duration(0), ""
	for _, key := range judgedKeys {
		for _, v := range []int16{0, kmsg.ResponseForKey(int16(key)).MaxVersion()} {
			resp := kmsg.ResponseForKey(int16(key))
			resp.SetVersion(v)
			fill(reflect.ValueOf(resp).Elem(), rand.New(rand.NewPCG(1, 1)))
			limit := int(min(answerLimit(key), MaxSmallAnswer))
			if limit == 0 {
				limit = MaxSmallAnswer // of a Fetch, more is batches
			}
			limit /= part
			eachList(reflect.ValueOf(resp).Elem(), fmt.Sprint(key.Name(), " v", v, " "), func(path string, list reflect.Value) {
				if list.Type().Elem().Kind() == reflect.Uint8 {
					return
				}
				small := reflect.ValueOf(list.Interface())
				defer list.Set(small)
				size := func(n int) int {
					list.Set(reflect.MakeSlice(list.Type(), n, n))
					return len(frameOf(resp))
				}
				empty := size(0)
				each := (size(1000) - empty) / 1000
				if each == 0 {
					return // not in this version
				}
				size((limit - empty - 64) / each)
				took, err := timeOf(t, resp)
				if took > most {
					t.Errorf("%d of %s: %v, %v", list.Len(), path, took, err)
				}
				if took > worst {
					worst, what = took, fmt.Sprint(list.Len(), " of ", path)
				}
			})
		}
	}
	t.Log(worst, what)
}

// timeOf returns how long it takes to look at an answer, and to decode it if it passes.
func timeOf(t testing.TB, resp kmsg.Response) (took time.Duration, err error) {
	t.Helper()
	frame := frameOf(resp)
	fresh := kmsg.ResponseForKey(resp.Key())
	fresh.SetVersion(resp.GetVersion())
	took = cpuTime(t, func() {
		w := newWalk(sentHead{kmsg.Key(resp.Key()), resp.GetVersion(), 7})
		if err = w.feed(frame[8:], 0); err != nil {
			return
		}
		body := frame[8:]
		if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
			body = body[1:]
		}
		err = fresh.ReadFrom(body)
	})
	return took, err
}

// What kgo makes of as many aborted transactions as an answer may have takes little time, too.
func TestAbortsTakeLittleTime(t *testing.T) {
	resp := kmsg.NewPtrFetchResponse()
	resp.SetVersion(11)
	resp.Topics = []kmsg.FetchResponseTopic{{Partitions: make([]kmsg.FetchResponseTopicPartition, 1)}}
	aborts := &resp.Topics[0].Partitions[0].AbortedTransactions
	for i := range (maxMade - 1000) / abortedCost {
		*aborts = append(*aborts, kmsg.FetchResponseTopicPartitionAbortedTransaction{ProducerID: int64(i)})
	}
	took, err := timeOf(t, resp)
	if err != nil {
		t.Fatal(err)
	}
	took += cpuTime(t, func() {
		kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{IsolationLevel: kgo.ReadCommitted()}, &resp.Topics[0].Partitions[0], kgo.DefaultDecompressor(), nil)
	})
	t.Log(took, len(*aborts))
	most := 450 * time.Millisecond // it took 45 ms
	if testrace.Enabled {
		most *= 10
	}
	if took > most {
		t.Errorf("%d aborted transactions took %v", len(*aborts), took)
	}
}
