// Renders the cases of cases.json with Go's own text/template and sprig, and writes what came out to expected.json.
// How to run it: see README.md beside it.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
)

// What a whole prompt is made from.
type PromptData struct {
	SystemPrompt         string
	SuppressSystemPrompt bool
	Input                string
	Instruction          string
	Functions            []Function
	MessageIndex         int
	ReasoningEffort      string
	Metadata             map[string]string
}

type Function struct {
	Name        string                 `json:"name"`
	Description string                 `json:"description"`
	Parameters  map[string]interface{} `json:"parameters"`
}

// What one message is made from.
type MessageData struct {
	SystemPrompt string
	Role         string
	RoleName     string
	FunctionName string
	Content      string
	MessageIndex int
	Function     bool
	FunctionCall interface{}
	LastMessage  bool
}

type ToolCall struct {
	Index        int            `json:"index"`
	ID           string         `json:"id"`
	Type         string         `json:"type"`
	FunctionCall CalledFunction `json:"function"`
}

type CalledFunction struct {
	Name      string `json:"name,omitempty"`
	Arguments string `json:"arguments"`
}

type Case struct {
	Name     string          `json:"name"`
	Kind     string          `json:"kind"` // prompt, message or map
	Template string          `json:"template"`
	Data     json.RawMessage `json:"data"`
}

type Written struct {
	EdgeData json.RawMessage `json:"edge_data"`
	Cases    []Case          `json:"cases"`
}

type Result struct {
	Name  string `json:"name"`
	Text  string `json:"text"`
	Error string `json:"error,omitempty"`
}

func main() {
	written, err := os.ReadFile("cases.json")
	check(err)
	var all Written
	check(json.Unmarshal(written, &all))
	results := []Result{}
	for _, each := range all.Cases {
		if each.Kind == "map" {
			each.Data = all.EdgeData
		}
		results = append(results, render(each))
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	check(encoder.Encode(results))
	check(os.WriteFile("expected.json", out.Bytes(), 0o644))
}

func render(each Case) Result {
	result := Result{Name: each.Name}
	parsed, err := template.New("x").Funcs(sprig.TxtFuncMap()).Parse(each.Template)
	if err != nil {
		result.Error = "parse: " + err.Error()
		return result
	}
	var made strings.Builder
	if err := parsed.Execute(&made, dataOf(each)); err != nil {
		result.Error = "render: " + err.Error()
		return result
	}
	result.Text = made.String()
	return result
}

func dataOf(each Case) interface{} {
	switch each.Kind {
	case "prompt":
		data := PromptData{}
		check(decode(each.Data, &data))
		for i := range data.Functions {
			data.Functions[i].Parameters, _ = plain(data.Functions[i].Parameters).(map[string]interface{})
		}
		return data
	case "message":
		data := MessageData{}
		check(decode(each.Data, &data))
		if data.FunctionCall != nil {
			var calls struct{ FunctionCall []ToolCall }
			check(decode(each.Data, &calls))
			data.FunctionCall = calls.FunctionCall
		}
		return data
	}
	var data interface{}
	check(decode(each.Data, &data))
	return plain(data)
}

func decode(written json.RawMessage, into interface{}) error {
	decoder := json.NewDecoder(bytes.NewReader(written))
	decoder.UseNumber()
	return decoder.Decode(into)
}

// Whole numbers as int, others as float64.
func plain(value interface{}) interface{} {
	switch value := value.(type) {
	case json.Number:
		if whole, err := value.Int64(); err == nil {
			return int(whole)
		}
		number, err := value.Float64()
		check(err)
		return number
	case []interface{}:
		for i := range value {
			value[i] = plain(value[i])
		}
	case map[string]interface{}:
		for key := range value {
			value[key] = plain(value[key])
		}
	}
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
