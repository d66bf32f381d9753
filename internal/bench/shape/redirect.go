package shape

import "strings"

// Redirect replaces the address in all the links of a root document of GraceDB.
func Redirect(doc map[string]any, from, to string) {
	for k, v := range doc {
		switch v := v.(type) {
		case string:
			doc[k] = strings.Replace(v, from, to, 1)
		case map[string]string:
			for name, link := range v {
				v[name] = strings.Replace(link, from, to, 1)
			}
		case map[string]any:
			Redirect(v, from, to)
		}
	}
}
