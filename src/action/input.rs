use futures::future::BoxFuture;

use crate::event::{Answer, Ask, InputKind, Outcome, parse_time};

use super::{Action, Context, confirm::cancelled};

/// `input`: the person gives a value, which becomes a variable. Asks again until the value fits its kind.
pub struct Input {
    pub variable: String,
    pub prompt: Option<String>,
    pub default: Option<String>,
    pub input: InputKind,
}

impl Action for Input {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let mut prompt = context.expand(self.prompt.as_deref().unwrap_or(&context.step().title));
            let default = self.default.as_deref().map(|text| context.expand(text)).filter(|text| !text.is_empty());
            let question = prompt.clone();
            loop {
                let ask = Ask::Input {
                    prompt: prompt.clone(),
                    variable: self.variable.clone(),
                    default: default.clone(),
                    input: self.input,
                };
                let Some(Answer::Text { text }) = context.ask(ask).await else { return cancelled() };
                match fit(self.input, text.trim()) {
                    Ok(value) => {
                        context.sink.set(&self.variable, value.clone()).await;
                        return Outcome::passed(format!("{}: {value}", self.variable)).fact("value", value);
                    }
                    Err(why) if context.unattended => {
                        return Outcome::failed(crate::event::Failure::new(question, why));
                    }
                    Err(why) => {
                        context.sink.say(&why).await;
                        prompt = format!("{question}  ({why})");
                    }
                }
            }
        })
    }
}

/// The value in its canonical spelling, or why it does not fit.
fn fit(input: InputKind, text: &str) -> Result<String, String> {
    match input {
        _ if text.is_empty() => Err("a value is needed".to_owned()),
        InputKind::Text => Ok(text.to_owned()),
        InputKind::Number => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(text.to_owned()),
            _ => Err(format!("`{text}` is not a number")),
        },
        InputKind::Time => parse_time(text)
            .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
            .map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_an_offset_does_not_fit() {
        assert!(fit(InputKind::Time, "2026-11-21 10:02:31").unwrap_err().contains("no offset"));
        assert_eq!(fit(InputKind::Time, "2026-11-21 10:02:31+01").unwrap(), "2026-11-21T09:02:31.000000Z");
    }
}
