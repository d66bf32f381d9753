package gracedb_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gracedb-go/gracedb"
)

// What follows an upload is a request of one's own: here an entry in the event's log, and a
// label, once GraceDB has the event's data.
func ExampleClient_HTTPClient() {
	services, err := startServices() // in a program: a real GraceDB
	if err != nil {
		log.Fatal(err)
	}
	defer services.stop()
	serviceURL := services.serviceURL // such as "https://gracedb-test.ligo.org/api/"

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := gracedb.NewClient(gracedb.ClientConfig{
		ServiceURL: serviceURL, CAFile: services.caFile, Token: services.token,
	})
	if err != nil {
		log.Print(err)
		return
	}
	// send is one request. Its answer has a status, which says what became of it.
	send := func(method, route string, form url.Values) error {
		req, err := http.NewRequestWithContext(ctx, method, serviceURL+"v2/"+route, strings.NewReader(form.Encode()))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := client.HTTPClient().Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			said, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
			return fmt.Errorf("%s %s: %s: %s", method, route, resp.Status, said)
		}
		fmt.Println(method, route, resp.Status)
		return nil
	}

	receipt, err := client.CreateEvent(ctx, gracedb.Event{ // or PublishEvent
		Group: "Test", Pipeline: "gstlal", Filename: "coinc.xml", Data: []byte("<LIGO_LW/>"),
	})
	if err == nil {
		err = client.WaitUploaded(ctx, receipt.GraceID)
	}
	if err == nil {
		err = send(http.MethodPost, "events/"+receipt.GraceID+"/log/", url.Values{
			"comment": {"the background looks good"}, "tagname": {"analyst_comments"},
		})
	}
	if err == nil {
		err = send(http.MethodPut, "events/"+receipt.GraceID+"/labels/SKYMAP_READY", nil)
	}
	if err != nil {
		log.Print(err)
	}
	// Output:
	// POST events/T1001/log/ 201 Created
	// PUT events/T1001/labels/SKYMAP_READY 201 Created
}
