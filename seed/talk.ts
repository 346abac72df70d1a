import type { Faker } from '@faker-js/faker'

/** What people say. Sentences are made of the library's words, in the tone of the chat. */

export type Tone = 'friends' | 'family' | 'work' | 'news'

const day = (f: Faker) => f.date.weekday()
const hour = (f: Faker) => `${f.number.int({ min: 7, max: 22 })}:${f.helpers.arrayElement(['00', '15', '30', '45'])}`
const thing = (f: Faker) => f.commerce.product().toLowerCase()

const short = [
  'Yes',
  'No idea',
  'Haha',
  'On my way',
  'Sounds good',
  'Thanks!',
  '👍',
  '😂',
  'Good morning',
  'Good night',
  'Really?',
  'Let me check',
  'I will be late',
  'Same here',
  'Why not',
  'Of course',
  'Not today',
  'Perfect',
  'See you there',
  'Oh no',
]

const templates: Record<Tone, ((f: Faker) => string)[]> = {
  friends: [
    (f) => `Shall we meet on ${day(f)} at ${hour(f)}?`,
    (f) => `I am in ${f.location.city()} until ${day(f)}`,
    (f) => `Has anybody been to ${f.location.country()}? We want to go in ${f.date.month()}`,
    (f) => `I can't stop listening to ${f.music.songName()}`,
    (f) => `Just finished "${f.book.title()}" by ${f.book.author()}. Read it!`,
    (f) => `${f.food.dish()} tonight? I have everything but ${f.food.ingredient()}`,
    (f) => `My ${thing(f)} is broken again. Can you lend me yours?`,
    (f) => `Who wants a ${f.animal.type()}? Mine had five, and one of them looks like a ${f.animal.type()}`,
    (f) => `I saw a ${f.vehicle.color()} ${f.vehicle.vehicle()} today and thought of you`,
    (f) => `Tickets for ${f.music.artist()} on ${day(f)}, anyone?`,
  ],
  family: [
    (f) => `Dinner is at ${hour(f)}. There will be ${f.food.dish()}`,
    (f) => `Can somebody bring ${f.food.ingredient()} and ${f.food.fruit()}?`,
    (f) => `Grandma asks whether you are coming on ${day(f)}`,
    (f) => `Who has the key to the house in ${f.location.street()}?`,
    (f) => `The ${f.animal.type()} has eaten the ${thing(f)}`,
    (f) => `${f.person.firstName()}'s birthday is on ${day(f)}. A ${thing(f)}, maybe?`,
    (f) => `I am at the doctor's until ${hour(f)}, please pick up the children`,
    (f) => `The train from ${f.location.city()} is ${f.number.int({ min: 10, max: 90 })} minutes late`,
    (f) => `Do not forget: the ${f.color.human()} bin goes out on ${day(f)}`,
  ],
  work: [
    (f) => f.hacker.phrase(),
    (f) => `Can we move the meeting to ${day(f)}, ${hour(f)}?`,
    (f) => `${f.company.name()} wants an answer by ${day(f)}`,
    (f) => `I have put the figures for ${f.date.month()} into the ${f.system.commonFileName('xlsx')}`,
    (f) => `Who knows why ${f.system.commonFileName('log')} is ${f.number.int({ min: 2, max: 90 })} GB?`,
    (f) => `The offer says ${f.finance.amount({ min: 500, max: 90_000, dec: 0, symbol: '€' })}. Is that with tax?`,
    (f) => `Version ${f.system.semver()} is out, see *${f.git.commitMessage()}*`,
    (f) => `Their slogan is "${f.company.catchPhrase()}". I could not make this up`,
    (f) => `I am out from ${day(f)}; ${f.person.firstName()} has my \`${f.git.branch()}\``,
  ],
  news: [
    (f) => `*${f.company.catchPhrase()}*: what we learned in ${f.date.month()}. ${f.internet.url()}`,
    (f) => `We are open again on ${day(f)} from ${hour(f)}. Today's dish: ${f.food.dish()}.`,
    (f) => `"${f.book.title()}" by ${f.book.author()} is back in stock.`,
    (f) => `Next meeting: ${day(f)}, ${hour(f)}, ${f.location.streetAddress()}, ${f.location.city()}.`,
    (f) => `New: ${f.commerce.productName()}. ${f.commerce.productDescription()}`,
  ],
}

export const reactions = ['👍', '❤️', '😂', '😮', '😢', '🙏', '🎉', '🔥']

export function say(f: Faker, tone: Tone): string {
  if (tone !== 'news' && f.datatype.boolean(0.3)) return f.helpers.arrayElement(short)
  const first = f.helpers.arrayElement(templates[tone])(f)
  return f.datatype.boolean(0.12) ? `${first}\n${f.helpers.arrayElement(templates[tone])(f)}` : first
}

export function nameChat(f: Faker, tone: Tone, surname: string): string {
  const names: Record<Tone, () => string> = {
    family: () => `Family ${surname}`,
    work: () => f.helpers.arrayElement([f.company.name(), `${f.commerce.department()} team`, `Project ${f.hacker.noun()}`]),
    news: () =>
      f.helpers.arrayElement([`${f.location.city()} today`, `${f.company.name()} news`, `Books of ${f.location.street()}`]),
    friends: () =>
      f.helpers.arrayElement([
        `Off to ${f.location.city()}`,
        `${day(f)} football`,
        `${f.music.genre()} night`,
        'Book club',
        `${f.food.ethnicCategory()} cooking`,
      ]),
  }
  return names[tone]().slice(0, 100)
}
