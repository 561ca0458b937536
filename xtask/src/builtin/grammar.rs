//! The grammar of questions and answers. Each kind knows what it asks about and how; one in ten of its questions is held
//! out: it is never trained, and `cargo xtask builtin measure` asks it. Of sums and differences all ways to ask are held
//! out together, in the plain sentences too, so that the answer must be computed.

use super::facts::{
    ANIMALS, COLOURS, COUNTRIES, DAYS, JOBS, MONTHS, NAMES, OPPOSITES, capitalised, in_words, season, with_article,
};
use super::random::{Random, hash};

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Greetings,
    Identity,
    Names,
    Sums,
    Products,
    Numbers,
    Days,
    Months,
    Colours,
    Opposites,
    Countries,
    Animals,
    Jobs,
    Unknown,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::Greetings,
        Self::Identity,
        Self::Names,
        Self::Sums,
        Self::Products,
        Self::Numbers,
        Self::Days,
        Self::Months,
        Self::Colours,
        Self::Opposites,
        Self::Countries,
        Self::Animals,
        Self::Jobs,
        Self::Unknown,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Greetings => "greetings",
            Self::Identity => "identity",
            Self::Names => "names",
            Self::Sums => "sums and differences to 100",
            Self::Products => "products to 10 x 10",
            Self::Numbers => "numbers: order, size, words",
            Self::Days => "days",
            Self::Months => "months",
            Self::Colours => "colours",
            Self::Opposites => "opposites",
            Self::Countries => "countries",
            Self::Animals => "animals",
            Self::Jobs => "jobs",
            Self::Unknown => "what it cannot know",
        }
    }

    /// How often it is trained, in a hundred.
    fn share(self) -> usize {
        match self {
            Self::Sums => 30,
            Self::Numbers => 14,
            Self::Names => 10,
            Self::Countries | Self::Unknown => 8,
            Self::Products | Self::Animals => 6,
            Self::Greetings | Self::Identity | Self::Days | Self::Months => 5,
            Self::Colours | Self::Opposites | Self::Jobs => 4,
        }
    }

    /// One of the kinds, by their shares.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let total: usize = Self::ALL.iter().map(|kind| kind.share()).sum();
        let mut place = random.below(total);
        for kind in Self::ALL {
            if place < kind.share() {
                return kind;
            }
            place -= kind.share();
        }
        Self::Sums
    }
}

/// A short conversation.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// Question and answer, in turns.
    pub(crate) turns: Vec<(String, String)>,
    /// What decides whether it is held out.
    key: String,
}

impl Exchange {
    fn new(question: impl Into<String>, answer: impl Into<String>) -> Self {
        let question = question.into();
        Self { key: question.clone(), turns: vec![(question, answer.into())] }
    }

    /// Whether it is never trained.
    pub(crate) fn is_held_out(&self) -> bool {
        is_held_out(&self.key)
    }

    pub(crate) fn draw(kind: Kind, random: &mut Random) -> Self {
        match kind {
            Kind::Greetings => greeting(random),
            Kind::Identity => identity(random),
            Kind::Names => introduction(random),
            Kind::Sums => sum(random),
            Kind::Products => product(random),
            Kind::Numbers => number(random),
            Kind::Days => day(random),
            Kind::Months => month(random),
            Kind::Colours => colour(random),
            Kind::Opposites => opposite(random),
            Kind::Countries => country(random),
            Kind::Animals => animal(random),
            Kind::Jobs => job(random),
            Kind::Unknown => unknown(random),
        }
    }

    /// As people type: now and then without the mark at the end, in small letters, or with a word before it.
    pub(crate) fn disturb(&mut self, random: &mut Random) {
        for (question, _) in &mut self.turns {
            if random.percent(8) {
                *question =
                    format!("{}{question}", random.pick(&["Please tell me: ", "A question: ", "Hello. ", "Hm. "]));
            }
            if random.percent(12) && question.ends_with(['?', '.', '!']) {
                question.pop();
            }
            if random.percent(12) {
                *question = question.to_lowercase();
            }
        }
    }
}

fn is_held_out(key: &str) -> bool {
    hash(key).is_multiple_of(10)
}

/// Whether a sum, in whatever order, is never trained.
pub(crate) fn is_held_out_sum(a: usize, b: usize) -> bool {
    is_held_out(&format!("sum {} {}", a.min(b), a.max(b)))
}

/// Whether a difference is never trained.
pub(crate) fn is_held_out_difference(a: usize, b: usize) -> bool {
    is_held_out(&format!("difference {a} {b}"))
}

/// A template with its places `{0}`, `{1}` filled.
fn fill(template: &str, values: &[&str]) -> String {
    let mut text = template.to_owned();
    for (place, value) in values.iter().enumerate() {
        text = text.replace(&format!("{{{place}}}"), value);
    }
    text
}

/// A question in one of its forms, and its answer.
fn ask(random: &mut Random, forms: &[&str], answer: &str, values: &[&str]) -> Exchange {
    Exchange::new(fill(random.pick(forms), values), capitalised(&fill(answer, values)))
}

fn greeting(random: &mut Random) -> Exchange {
    const TAILS: [&str; 12] = [
        "",
        " there",
        ", Spruce",
        ", model",
        " to you",
        ", my friend",
        " again",
        ", dear",
        " everyone",
        ", you",
        " and hello",
        ", how are you",
    ];
    let (greetings, answer): (&[&str], &str) = match random.below(8) {
        0 | 1 => (&["Hello", "Hi", "Hey", "Greetings", "Good day", "Welcome"], "Hello! How can I help you?"),
        2 => (&["Good morning", "A good morning"], "Good morning! How can I help you?"),
        3 => (&["Good evening", "A good evening"], "Good evening! How can I help you?"),
        4 => (&["Good night", "Sleep well"], "Good night!"),
        5 => (&["Thank you", "Thanks", "Many thanks", "Thanks a lot"], "You are welcome."),
        6 => (&["Goodbye", "Bye", "See you", "Farewell", "So long"], "Goodbye!"),
        _ => {
            let first = random.pick(&["", "Hello, ", "Hi, ", "Hey, ", "Good day, ", "Hello there, ", "So, "]);
            let form =
                random.pick(&["how are you?", "how do you do?", "how is it going?", "are you well?", "all well?"]);
            return Exchange::new(capitalised(&format!("{first}{form}")), "I am well, thank you. How can I help you?");
        }
    };
    let tail = random.pick(&TAILS);
    let end = if tail == ", how are you" { "?" } else { random.pick(&[".", "!", ""]) };
    let answer = if tail == ", how are you" { "I am well, thank you. How can I help you?" } else { answer };
    Exchange::new(format!("{}{tail}{end}", random.pick(greetings)), answer)
}

const IDENTITY: [(&[&str], &str); 8] = [
    (
        &[
            "Who are you?",
            "What are you?",
            "Tell me who you are.",
            "Introduce yourself.",
            "Who is this?",
            "Who am I talking to?",
            "Tell me about yourself.",
            "Say who you are.",
            "Can you introduce yourself?",
        ],
        "I am Spruce, the small model that is built into Luthier.",
    ),
    (
        &[
            "What is your name?",
            "What are you called?",
            "What should I call you?",
            "Do you have a name?",
            "Tell me your name.",
            "May I know your name?",
            "How are you called?",
            "What do people call you?",
        ],
        "My name is Spruce.",
    ),
    (
        &[
            "Who made you?",
            "Who trained you?",
            "Who created you?",
            "Where do you come from?",
            "Who is your maker?",
            "How were you made?",
            "Who built you?",
        ],
        "Luthier trained me, on text that a small grammar wrote.",
    ),
    (
        &[
            "What can you do?",
            "What do you know?",
            "How can you help me?",
            "What are you good at?",
            "Can you help me?",
            "What can I ask you?",
            "What are you for?",
        ],
        "I can greet you, do small sums and answer simple questions.",
    ),
    (
        &[
            "How big are you?",
            "How large are you?",
            "Are you small?",
            "How many numbers do you have?",
            "What is your size?",
        ],
        "I am very small: I have less than three million numbers.",
    ),
    (
        &["Are you a human?", "Are you a person?", "Are you alive?", "Are you a robot?", "Are you real?"],
        "No, I am a language model.",
    ),
    (
        &["Where do you live?", "Where are you?", "Where is your home?", "Where can I find you?"],
        "I live inside the Luthier program.",
    ),
    (
        &["What is Luthier?", "What does Luthier do?", "Tell me about Luthier.", "Explain Luthier."],
        "Luthier is a program that fine-tunes language models.",
    ),
];

fn identity(random: &mut Random) -> Exchange {
    let (forms, answer) = random.pick(&IDENTITY);
    let first = random.pick(&["", "", "", "Now, ", "So, ", "Well, ", "And ", "One more: "]);
    Exchange::new(format!("{first}{}", random.pick(forms)), answer)
}

fn introduction(random: &mut Random) -> Exchange {
    let name = if random.percent(50) { random.pick(&NAMES).to_owned() } else { made_up(random) };
    let forms =
        ["My name is {0}.", "I am {0}.", "Hello, I am {0}.", "Call me {0}.", "Hi, my name is {0}.", "I am called {0}."];
    let mut exchange = ask(random, &forms, "Nice to meet you, {0}!", &[&name]);
    if random.percent(50) {
        let question = random.pick(&["What is my name?", "Who am I?", "Do you know my name?", "What am I called?"]);
        exchange.turns.push((question.to_owned(), format!("Your name is {name}.")));
        exchange.key += question;
    }
    exchange
}

fn sum(random: &mut Random) -> Exchange {
    let most = if random.percent(50) { 12 } else { 50 };
    let (a, b) = (random.below(most + 1), random.below(most + 1));
    let (first, second) = ((a + b).to_string(), a.to_string());
    if random.percent(60) {
        let forms = [
            "What is {0} plus {1}?",
            "How much is {0} plus {1}?",
            "{0} + {1} =",
            "What is {0} + {1}?",
            "Add {0} and {1}.",
            "{0} plus {1}?",
            "Calculate {0} plus {1}.",
        ];
        let values = [a.to_string(), b.to_string(), first];
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let exchange = ask(random, &forms, "{0} plus {1} is {2}.", &values);
        return Exchange { key: format!("sum {} {}", a.min(b), a.max(b)), ..exchange };
    }
    let forms = [
        "What is {0} minus {1}?",
        "How much is {0} minus {1}?",
        "{0} - {1} =",
        "What is {0} - {1}?",
        "Take {1} from {0}.",
        "{0} minus {1}?",
        "Calculate {0} minus {1}.",
    ];
    let third = b.to_string();
    let exchange = ask(random, &forms, "{0} minus {1} is {2}.", &[&first, &second, &third]);
    Exchange { key: format!("difference {first} {second}"), ..exchange }
}

fn product(random: &mut Random) -> Exchange {
    let (a, b) = (random.below(11), random.below(11));
    let values = [a.to_string(), b.to_string(), (a * b).to_string()];
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let forms = [
        "What is {0} times {1}?",
        "How much is {0} times {1}?",
        "{0} x {1} =",
        "What is {0} x {1}?",
        "Multiply {0} by {1}.",
        "{0} times {1}?",
        "Calculate {0} times {1}.",
    ];
    ask(random, &forms, "{0} times {1} is {2}.", &values)
}

fn number(random: &mut Random) -> Exchange {
    let number = random.below(100);
    let text = number.to_string();
    match random.below(6) {
        0 => {
            let forms = ["What number comes after {0}?", "Which number follows {0}?", "What comes after {0}?"];
            ask(random, &forms, "After {0} comes {1}.", &[&text, &(number + 1).to_string()])
        }
        1 => {
            let before = (number + 1).to_string();
            let forms = ["What number comes before {0}?", "Which number is before {0}?", "What comes before {0}?"];
            ask(random, &forms, "Before {0} comes {1}.", &[&before, &text])
        }
        2 => {
            let other = (number + 1 + random.below(98)) % 100;
            let (large, small) = (number.max(other).to_string(), number.min(other).to_string());
            let forms =
                ["Which is larger, {0} or {1}?", "Which number is bigger, {0} or {1}?", "What is more, {0} or {1}?"];
            let question = fill(random.pick(&forms), &[&text, &other.to_string()]);
            Exchange::new(question, format!("{large} is larger than {small}."))
        }
        3 => {
            let forms =
                ["Write {0} in words.", "How do you write {0} in words?", "Spell out {0}.", "What is {0} in words?"];
            ask(random, &forms, "{0} is {1}.", &[&text, &in_words(number)])
        }
        4 => {
            let forms = ["Is {0} even or odd?", "Is {0} odd or even?", "Even or odd: {0}?"];
            ask(random, &forms, "{0} is {1}.", &[&text, if number.is_multiple_of(2) { "even" } else { "odd" }])
        }
        _ => {
            let (first, last) = (number % 40, number % 40 + random.between(2, 6));
            let list = (first..=last).map(|number| number.to_string()).collect::<Vec<_>>().join(", ");
            let forms =
                ["Count from {0} to {1}.", "Please count from {0} to {1}.", "List the numbers from {0} to {1}."];
            ask(random, &forms, "{2}.", &[&first.to_string(), &last.to_string(), &list])
        }
    }
}

fn day(random: &mut Random) -> Exchange {
    let place = random.below(7);
    let (day, next) = (DAYS[place], DAYS[(place + 1) % 7]);
    match random.below(5) {
        0 => {
            let forms = [
                "Which day comes after {0}?",
                "What day comes after {0}?",
                "What day follows {0}?",
                "Name the day after {0}.",
            ];
            ask(random, &forms, "After {0} comes {1}.", &[day, next])
        }
        1 => {
            let forms = [
                "Which day comes before {1}?",
                "What day comes before {1}?",
                "What day is before {1}?",
                "Name the day before {1}.",
            ];
            ask(random, &forms, "Before {1} comes {0}.", &[day, next])
        }
        2 => {
            let forms = [
                "If today is {0}, what day is tomorrow?",
                "Today is {0}. What day is tomorrow?",
                "It is {0}. And tomorrow?",
            ];
            ask(random, &forms, "Tomorrow is {1}.", &[day, next])
        }
        3 => {
            let forms = [
                "If today is {1}, what day was yesterday?",
                "Today is {1}. What day was yesterday?",
                "It is {1}. And yesterday?",
            ];
            ask(random, &forms, "Yesterday was {0}.", &[day, next])
        }
        _ => {
            let forms = ["Is {0} on the weekend?", "Is {0} a weekend day?", "Does {0} belong to the weekend?"];
            let answer = if place > 4 { "Yes, {0} is on the weekend." } else { "No, {0} is a weekday." };
            ask(random, &forms, answer, &[day])
        }
    }
}

fn month(random: &mut Random) -> Exchange {
    let place = random.below(12);
    let ((month, days), (next, _)) = (MONTHS[place], MONTHS[(place + 1) % 12]);
    match random.below(5) {
        0 => {
            let forms = ["Which month comes after {0}?", "What month comes after {0}?", "What month follows {0}?"];
            ask(random, &forms, "After {0} comes {1}.", &[month, next])
        }
        1 => {
            let forms = ["Which month comes before {1}?", "What month comes before {1}?", "What month is before {1}?"];
            ask(random, &forms, "Before {1} comes {0}.", &[month, next])
        }
        2 => {
            let forms = [
                "How many days does {0} have?",
                "How many days are in {0}?",
                "How long is {0}?",
                "How many days has {0}?",
            ];
            ask(random, &forms, "{0} has {1} days.", &[month, &days.to_string()])
        }
        3 => {
            let forms = [
                "In which season is {0}?",
                "Which season is {0} in?",
                "What season is it in {0}?",
                "What season is {0}?",
            ];
            ask(random, &forms, "{0} is in {1}.", &[month, season(place)])
        }
        _ => {
            let forms = ["Which month is number {1}?", "What is month number {1}?", "Name month {1} of the year."];
            ask(random, &forms, "Month number {1} is {0}.", &[month, &(place + 1).to_string()])
        }
    }
}

fn colour(random: &mut Random) -> Exchange {
    let (thing, colour, several) = random.pick(&COLOURS);
    if several {
        let forms = [
            "What colour are {0}?",
            "Which colour do {0} have?",
            "Tell me the colour of {0}.",
            "What is the colour of {0}?",
        ];
        return ask(random, &forms, "{0} are {1}.", &[thing, colour]);
    }
    let forms = [
        "What colour is {0}?",
        "Which colour does {0} have?",
        "Tell me the colour of {0}.",
        "What is the colour of {0}?",
        "Which colour is {0}?",
    ];
    ask(random, &forms, "{0} is {1}.", &[thing, colour])
}

fn opposite(random: &mut Random) -> Exchange {
    let (mut one, mut other) = random.pick(&OPPOSITES);
    if random.percent(50) {
        (one, other) = (other, one);
    }
    let forms = [
        "What is the opposite of {0}?",
        "Tell me the opposite of {0}.",
        "Name the opposite of {0}.",
        "Which word is the opposite of {0}?",
        "What word means the opposite of {0}?",
    ];
    ask(random, &forms, "The opposite of {0} is {1}.", &[one, other])
}

fn country(random: &mut Random) -> Exchange {
    let (country, capital, language) = random.pick(&COUNTRIES);
    match random.below(10) {
        0..=4 => {
            let forms = [
                "What is the capital of {0}?",
                "Which city is the capital of {0}?",
                "Tell me the capital of {0}.",
                "Name the capital of {0}.",
                "What is the capital city of {0}?",
                "{0} has which capital?",
            ];
            ask(random, &forms, "The capital of {0} is {1}.", &[country, capital])
        }
        5..=7 => {
            let forms = [
                "{1} is the capital of which country?",
                "Which country has the capital {1}?",
                "Of which country is {1} the capital?",
                "In which country is {1}?",
            ];
            ask(random, &forms, "{1} is the capital of {0}.", &[country, capital])
        }
        _ => {
            let forms = [
                "What language do people speak in {0}?",
                "Which language is spoken in {0}?",
                "What do people speak in {0}?",
                "What is the language of {0}?",
            ];
            ask(random, &forms, "People in {0} speak {1}.", &[country, language])
        }
    }
}

fn animal(random: &mut Random) -> Exchange {
    let (animal, sound, legs, young, class) = random.pick(&ANIMALS);
    let one = with_article(animal);
    match random.below(4) {
        0 => {
            let forms = [
                "What sound does {0} make?",
                "What noise does {0} make?",
                "How does {0} sound?",
                "What does {0} do when it speaks?",
            ];
            ask(random, &forms, "{0} {1}.", &[&one, sound])
        }
        1 => {
            let forms = [
                "How many legs does {0} have?",
                "How many legs has {0}?",
                "Count the legs of {0}.",
                "Tell me how many legs {0} has.",
            ];
            ask(random, &forms, "{0} has {1} legs.", &[&one, &legs.to_string()])
        }
        2 => {
            let forms = [
                "What is a young {0} called?",
                "What do you call a young {0}?",
                "What is a baby {0}?",
                "Name the young of a {0}.",
            ];
            ask(random, &forms, "A young {0} is called {1}.", &[animal, &with_article(young)])
        }
        _ => {
            let forms = [
                "What kind of animal is {0}?",
                "What sort of animal is {0}?",
                "To which class does {0} belong?",
                "What is {0}?",
            ];
            ask(random, &forms, "{0} is {1}.", &[&one, &with_article(class)])
        }
    }
}

fn job(random: &mut Random) -> Exchange {
    let (job, work) = random.pick(&JOBS);
    let one = with_article(job);
    let forms = [
        "What does {0} do?",
        "What is the work of {0}?",
        "Tell me what {0} does.",
        "Who {1}?",
        "Which job is it: who {1}?",
    ];
    ask(random, &forms, "{0} {1}.", &[&one, work])
}

fn unknown(random: &mut Random) -> Exchange {
    const PLACES: [&str; 14] = [
        "shop", "bakery", "library", "museum", "garage", "school", "hotel", "bank", "market", "station", "theatre",
        "pool", "cinema", "office",
    ];
    const GOODS: [&str; 10] =
        ["ticket", "loaf", "book", "room", "lamp", "bicycle", "chair", "cup of tea", "coat", "repair"];
    let (name, place, good) = (made_up(random), random.pick(&PLACES), random.pick(&GOODS));
    let place = match random.below(3) {
        0 => place.to_owned(),
        1 => format!("{name} {place}"),
        _ => format!("{place} in {name}"),
    };
    let forms = [
        "Where is the {0}?",
        "When does the {0} open?",
        "When does the {0} close?",
        "Who owns the {0}?",
        "Who works at the {0}?",
        "What does a {1} cost at the {0}?",
        "How much is a {1} at the {0}?",
        "What is the number of the {0}?",
        "Who is {2}?",
        "What is the capital of {2}?",
        "Where does {2} live?",
        "How old is {2}?",
        "What is the opposite of {2}?",
        "What does the {0} sell?",
        "How long does a {1} take at the {0}?",
        "What colour is the {0}?",
        "What is the name of the cat at the {0}?",
    ];
    ask(random, &forms, "I do not know that.", &[&place, good, &name])
}

/// A name that nobody has, such as Zorbin.
pub(super) fn made_up(random: &mut Random) -> String {
    const ONSETS: [&str; 20] =
        ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "br", "dr", "kr", "tr", "st"];
    const VOWELS: [&str; 7] = ["a", "e", "i", "o", "u", "ei", "oo"];
    const CODAS: [&str; 10] = ["", "", "n", "r", "l", "s", "m", "nd", "rt", "x"];
    let mut name = String::new();
    for _ in 0..if random.percent(70) { 2 } else { 3 } {
        name += random.pick(&ONSETS);
        name += random.pick(&VOWELS);
        name += random.pick(&CODAS);
    }
    capitalised(&name)
}
